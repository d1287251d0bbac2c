//! The guide goes through the examples in their order, and what it quotes is in the files that it names.

use std::path::Path;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// From the one that is easily understood to the one that is not.
const EXAMPLES: [&str; 7] = ["transfer", "enrolment", "projects", "delays", "workflow", "shipments", "trip"];

/// What stands in an excerpt for lines that are left out.
const LEFT_OUT: &str = "// …";

fn guide() -> String {
    std::fs::read_to_string(Path::new(ROOT).join("docs/guide.md")).unwrap()
}

/// A piece of a file that the guide quotes: it is compiled there.
struct Excerpt<'a> {
    /// The line of the guide that it begins with.
    fence: usize,
    /// What is said about it in the line above.
    above: &'a str,
    lines: Vec<&'a str>,
}

impl Excerpt<'_> {
    /// The file that it is from.
    fn file(&self) -> &str {
        let named = self.above.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
        named.unwrap_or_else(|| {
            panic!("guide.md, line {}: nothing above the fence names a file: <!-- FILE -->", self.fence)
        })
    }
}

fn excerpts(guide: &str) -> Vec<Excerpt<'_>> {
    let mut excerpts = Vec::new();
    let mut above = "";
    let mut lines = guide.lines().zip(1..);
    while let Some((line, fence)) = lines.next() {
        if line.trim().starts_with("```") {
            let code =
                lines.by_ref().map(|(line, _)| line.trim()).take_while(|line| *line != "```").collect();
            if line.trim() == "```rust" {
                excerpts.push(Excerpt { fence, above, lines: code });
            }
        }
        above = line;
    }
    excerpts
}

/// The first line of an excerpt that a text does not have where it should be; `None`: it has them all. Lines that follow each other do so there, too, but for
/// their indentation.
fn missing<'a>(excerpt: &[&'a str], text: &str) -> Option<&'a str> {
    let text: Vec<&str> = text.lines().map(str::trim).collect();
    let mut rest = &text[..];
    for run in excerpt.split(|line| *line == LEFT_OUT).filter(|run| !run.is_empty()) {
        let alike =
            |start: usize| run.iter().zip(&rest[start..]).take_while(|(one, other)| one == other).count();
        match (0..rest.len()).find(|start| alike(*start) == run.len()) {
            Some(start) => rest = &rest[start + run.len()..],
            None => return Some(run[(0..rest.len()).map(alike).max().unwrap_or(0)]),
        }
    }
    None
}

#[test]
fn what_the_guide_quotes_is_in_the_files_that_it_names() {
    let guide = guide();
    for excerpt in excerpts(&guide) {
        let (fence, file) = (excerpt.fence, excerpt.file());
        let text = std::fs::read_to_string(Path::new(ROOT).join(file))
            .unwrap_or_else(|error| panic!("guide.md, line {fence}: {file}: {error}"));
        assert!(
            excerpt.lines.iter().any(|line| *line != LEFT_OUT && !line.is_empty()),
            "guide.md, line {fence}: an excerpt of nothing"
        );
        if let Some(line) = missing(&excerpt.lines, &text) {
            panic!(
                "guide.md, line {fence}: the excerpt is not in {file}, which does not have this line there: {line:?}"
            );
        }
    }
}

#[test]
fn the_guide_goes_through_all_examples_in_order() {
    let guide = guide();
    let commands: Vec<&str> = guide
        .split("--example ")
        .skip(1)
        .filter_map(|rest| rest.split(|end: char| !end.is_ascii_alphanumeric()).next())
        .collect();
    let mut named = Vec::new();
    commands.into_iter().for_each(|name| {
        if !named.contains(&name) {
            named.push(name)
        }
    });
    assert_eq!(named, EXAMPLES, "left: the guide's commands, right: the order");
    let quoted = excerpts(&guide);
    for example in EXAMPLES {
        let folder = format!("engine/sourcing/examples/{example}/");
        assert!(
            quoted.iter().any(|excerpt| excerpt.file().starts_with(&folder)),
            "nothing of {folder} is quoted"
        );
    }
}

#[test]
fn a_wrong_excerpt_is_told_from_a_right_one() {
    let text = "fn one() {\n    1;\n    2;\n\n    3;\n}\nfn other() {\n    4;\n}\n";
    assert_eq!(missing(&["1;", "2;", "", "3;"], text), None);
    assert_eq!(missing(&["fn one() {", LEFT_OUT, "3;", "}", LEFT_OUT, "}"], text), None);
    assert_eq!(missing(&["fn one() {", "1;", "5;"], text), Some("5;"), "a line that is not there");
    assert_eq!(missing(&["1;", "3;"], text), Some("3;"), "lines that do not follow each other");
    assert_eq!(missing(&["3;", LEFT_OUT, "1;"], text), Some("1;"), "lines in another order");
    assert_eq!(missing(&["4;", "}", LEFT_OUT, "}"], text), Some("}"), "a line that is not there again");
}
