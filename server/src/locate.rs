//! Which directory is the store: the given one, or one of the stores in it.

use crate::failure::Failure;
use std::fs;
use std::path::{Path, PathBuf};

/// The file that makes a directory a store.
const MANIFEST: &str = "manifest";
/// The store that is meant where none is named.
pub(crate) const STORE_DEFAULT: &str = "default";
/// What the directory of a store that is being removed begins with.
const REMOVED: &str = ".removed-";
/// How many names of stores an error lists; a server may hold thousands.
const NAMES_SHOWN_MAX: usize = 20;

/// The directory of the store that `data` and `store` mean. Creates nothing and opens nothing: a
/// directory that is no store yet is for the opening to judge.
pub(crate) fn locate(data: &Path, store: Option<&str>) -> Result<PathBuf, Failure> {
    let name = store.unwrap_or(STORE_DEFAULT);
    check_name(name)?;
    if is_store(data) {
        return if name == STORE_DEFAULT {
            Ok(data.to_owned())
        } else {
            Err(Failure::Usage(format!(
                "{} is one store, not a directory of stores; leave out --store {name}",
                data.display()
            )))
        };
    }
    let chosen = data.join(name);
    let names = store_names(data);
    if names.is_empty() {
        // Nothing here yet, or nothing that is a store. Only a name of its own makes a directory of stores.
        return Ok(if name == STORE_DEFAULT { data.to_owned() } else { chosen });
    }
    if chosen.is_dir() {
        return Ok(chosen);
    }
    Err(Failure::Usage(format!(
        "{} is a directory of stores without a store \"{name}\"; choose one with --store NAME: {}",
        data.display(),
        listed(&names)
    )))
}

/// What a store keeps beside its segments: no store beside others is called that, or they would be taken for one.
const RESERVED: [&str; 5] = [MANIFEST, "lock", "mark", "snapshots", "subscriptions"];
/// Longest name, in bytes: file systems have 255, and a store that is being removed has a longer one.
const NAME_BYTES_MAX: usize = 200;

/// Whether a store may have that name: one ordinary directory below the given one, never a way out of it.
pub(crate) fn is_name(name: &str) -> bool {
    // What begins with a dot is not for a server to list: a store that is being removed does.
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !RESERVED.contains(&name)
        && !name.starts_with('.')
        && !name.contains(['/', '\\'])
        && !name.chars().any(char::is_control)
}

/// What is said of a name that none may have: as much of it as a name may have, and that there is more.
pub(crate) fn shortened(name: &str) -> String {
    let mut end = name.len().min(NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    if end == name.len() { name.to_owned() } else { format!("{} ...", &name[..end]) }
}

fn check_name(name: &str) -> Result<(), Failure> {
    if is_name(name) {
        Ok(())
    } else {
        Err(Failure::Usage(format!(
            "\"{}\" cannot be the name of a store: it must be the name of a directory, of up to {NAME_BYTES_MAX} bytes, that \
             does not begin with a dot and is none of {}",
            shortened(name).escape_debug(),
            RESERVED.join(", ")
        )))
    }
}

/// Whether there is a store in that directory.
pub(crate) fn is_store(dir: &Path) -> bool {
    dir.join(MANIFEST).is_file()
}

/// The directory of a store that is to be made or dropped, in a directory of stores.
pub(crate) fn new_store(data: &Path, name: &str) -> Result<PathBuf, Failure> {
    check_name(name)?;
    if is_store(data) {
        return Err(Failure::Usage(format!(
            "{} is one store, and no directory of stores; to have others beside it, move it to {}/{STORE_DEFAULT} first",
            data.display(),
            data.display()
        )));
    }
    Ok(data.join(name))
}

/// Removes a store, once it is closed. Whatever stops that midway, either all of it is still there, or it is no store any
/// more; what is left of it then is removed with the next one.
pub(crate) fn remove(dir: &Path, close: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(Failure::Usage(format!("{} cannot be removed", dir.display())));
    };
    let mut hidden = std::ffi::OsString::from(REMOVED);
    hidden.push(name);
    let removed = parent.join(hidden);
    let failed = |error| Failure::io("remove", dir, error);
    let begun = match fs::remove_dir_all(&removed) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
        _ => fs::rename(dir, &removed).map_err(failed),
    };
    // Closed in any case; moved before, so that nobody opens it in between.
    let closed = close();
    begun?;
    fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
    fs::remove_dir_all(&removed).map_err(failed)?;
    closed
}

/// Names of the stores that `data` means.
pub(crate) fn names(data: &Path) -> Vec<String> {
    if is_store(data) { vec![STORE_DEFAULT.to_owned()] } else { store_names(data) }
}

/// Names of the stores in a directory, sorted. A directory that cannot be listed has none: opening
/// it says why.
fn store_names(data: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(data) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| is_store(&entry.path()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| check_name(name).is_ok())
        .collect();
    names.sort_unstable();
    names
}

pub(crate) fn listed(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMES_SHOWN_MAX)].join(", ");
    match names.len().saturating_sub(NAMES_SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_stores(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join(MANIFEST), b"").unwrap();
        }
        dir
    }

    #[test]
    fn a_store_is_itself() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MANIFEST), b"").unwrap();
        assert_eq!(locate(dir.path(), None).unwrap(), dir.path());
        assert_eq!(locate(dir.path(), Some("default")).unwrap(), dir.path());
        assert!(matches!(locate(dir.path(), Some("other")), Err(Failure::Usage(_))));
    }

    #[test]
    fn a_directory_of_stores_gives_the_named_one() {
        let dir = with_stores(&["default", "other"]);
        assert_eq!(locate(dir.path(), None).unwrap(), dir.path().join("default"));
        assert_eq!(locate(dir.path(), Some("other")).unwrap(), dir.path().join("other"));
    }

    #[test]
    fn a_missing_store_is_refused_with_the_names() {
        let dir = with_stores(&["b", "a"]);
        let message = locate(dir.path(), None).unwrap_err().to_string();
        assert!(message.contains("a, b"), "{message}");
        assert!(message.contains("\"default\""), "{message}");
    }

    #[test]
    fn nothing_there_yet_is_the_directory_itself() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(locate(dir.path(), None).unwrap(), dir.path());
        let missing = dir.path().join("missing");
        assert_eq!(locate(&missing, None).unwrap(), missing);
        assert_eq!(locate(&missing, Some("tenant")).unwrap(), missing.join("tenant"));
    }

    #[test]
    fn a_name_never_leads_out_of_the_directory() {
        for name in
            ["", ".", "..", ".hidden", "../other", "a/b", "a\nb", "manifest", "lock", &"x".repeat(201)]
        {
            assert!(matches!(locate(Path::new("data"), Some(name)), Err(Failure::Usage(_))), "{name:?}");
        }
    }
}
