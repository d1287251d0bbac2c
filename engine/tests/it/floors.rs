//! The floors of the engine: what each room may use, kept by reading the source.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The rooms from the lowest floor up, and the rooms that each may use besides itself and the words, which are a
/// crate of their own.
const FLOORS: [(&str, &[&str]); 13] = [
    ("clock", &[]),
    ("sync", &[]),
    ("striped", &["sync"]),
    ("prefetch", &[]),
    ("threads", &[]),
    ("format", &[]),
    ("disk", &["prefetch"]),
    ("log", &["sync", "striped", "threads", "format", "disk"]),
    ("index", &["prefetch", "format", "disk"]),
    ("subscription", &["format"]),
    ("store", &["clock", "sync", "striped", "threads", "format", "disk", "log", "index", "subscription"]),
    ("models", &["sync", "log", "store"]),
    ("testing", &["clock", "threads", "format", "disk", "log", "index", "subscription", "store"]),
];

/// Files that may hold `unsafe`: they map, align or ring, or fill and lend memory that is shared with what does; lock; or
/// ask the processor for memory in advance, or the system for it soon.
const UNSAFE: [&str; 9] = [
    "disk/aligned.rs",
    "disk/real.rs",
    "log/image.rs",
    "log/tail.rs",
    "log/unsealed.rs",
    "log/writer.rs",
    "prefetch.rs",
    "threads.rs",
    "store/gate.rs",
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All source files, by their path below `src`, without comments.
fn files() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut directories = vec![source()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(source()).unwrap().to_string_lossy().into_owned();
                files.insert(name, without_comments(&std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(files.len() > 50, "the source is there");
    files
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The module that a file is: `store/read.rs` is `store::read`.
fn module_of(file: &str) -> Vec<&str> {
    let mut module: Vec<_> = file.trim_end_matches(".rs").split('/').collect();
    if module.last() == Some(&"mod") {
        module.pop();
    }
    module
}

/// The crate's own paths that a file names, each as the module path it leads to: `crate::…`, and `super::…` from the
/// file's own module.
fn paths(file: &str, text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let boundary = |at: usize| {
        !text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':')
    };
    for (at, _) in text.match_indices("crate::").filter(|(at, _)| boundary(*at)) {
        for path in names_in(&text[at + "crate::".len()..]) {
            found.push(path);
        }
    }
    for (at, _) in text.match_indices("super::").filter(|(at, _)| boundary(*at)) {
        let mut module: Vec<String> = module_of(file).into_iter().map(str::to_owned).collect();
        let mut rest = &text[at..];
        while let Some(tail) = rest.strip_prefix("super::") {
            // One in a `mod tests` inside the file is one level deeper; taking it for one of the file is the safe side.
            module.pop();
            rest = tail;
        }
        for path in names_in(rest) {
            found.push(module.iter().cloned().chain(path).collect());
        }
    }
    found
}

/// The first names behind a path's beginning: one, or those of a braced group.
fn names_in(rest: &str) -> Vec<Vec<String>> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
    };
    let Some(group) = rest.strip_prefix('{') else { return vec![vec![name(rest)]] };
    let mut depth = 1;
    let mut names = vec![vec![name(group)]];
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => names.push(vec![name(&group[at + 1..])]),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names.retain(|path| !path[0].is_empty());
    names
}

#[test]
fn every_room_uses_lower_floors_alone() {
    let floors: BTreeMap<_, _> = FLOORS.into_iter().collect();
    let mut wrong = BTreeSet::new();
    for (file, text) in files() {
        let room = module_of(&file)[0];
        if room == "lib" {
            continue;
        }
        let Some(allowed) = floors.get(room) else { panic!("{file} is in a room that has no floor: {room}") };
        for path in paths(&file, &text) {
            let used = path[0].as_str();
            if floors.contains_key(used) && used != room && !allowed.contains(&used) {
                wrong.insert(format!("{file} uses {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_is_imported_through_the_root() {
    let rooms: BTreeSet<_> = FLOORS.iter().map(|(room, _)| *room).collect();
    let mut wrong = BTreeSet::new();
    for (file, text) in files() {
        // The proof stands where users stand.
        if matches!(module_of(&file)[0], "lib" | "testing") {
            continue;
        }
        for path in paths(&file, &text) {
            if !rooms.contains(path[0].as_str()) {
                wrong.insert(format!("{file} uses crate::{}", path.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_unsafe_code_but_where_it_must_be() {
    let uses = |text: &str| {
        ["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code)"].iter().any(|word| text.contains(word))
    };
    let found: BTreeSet<_> =
        files().into_iter().filter(|(_, text)| uses(text)).map(|(file, _)| file).collect();
    let allowed: BTreeSet<_> = UNSAFE.into_iter().map(str::to_owned).collect();
    let more: Vec<_> = found.difference(&allowed).collect();
    assert!(more.is_empty(), "unsafe code in further files: {more:?}");
    let fewer: Vec<_> = allowed.difference(&found).collect();
    assert!(fewer.is_empty(), "no unsafe code any more, so take them off the list: {fewer:?}");
}

#[test]
fn the_words_know_nothing_of_bytes_or_files() {
    let words = Path::new(env!("CARGO_MANIFEST_DIR")).join("types/src");
    for entry in std::fs::read_dir(words).unwrap() {
        let path = entry.unwrap().path();
        let text = without_comments(&std::fs::read_to_string(&path).unwrap());
        for word in ["std::fs", "File::", "annals::", "SystemTime", "Instant"] {
            assert!(!text.contains(word), "{} names {word}", path.display());
        }
    }
}
