//! What the documents name exists.

use std::path::{Path, PathBuf};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Every Rust file below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Whether a test with the last part of this name is in a file of the module before it.
fn exists(name: &str, sources: &[(PathBuf, String)]) -> bool {
    let parts: Vec<&str> = name.split("::").collect();
    let function = format!("fn {}(", parts[parts.len() - 1]);
    let tree = match parts[0] {
        "it" => "engine/tests",
        "cli" => "server/tests",
        "app" => "engine/sourcing",
        _ => "engine/src",
    };
    sources.iter().any(|(path, text)| {
        let module = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        path.to_string_lossy().contains(tree) && parts.contains(&module) && text.contains(&function)
    })
}

/// Whether this is, behind the name of all tests of a package, the name of one module, and of no test.
fn is_module(name: &str) -> bool {
    !name.contains("::")
}

#[test]
fn the_tests_that_the_documents_name_exist() {
    let document = |name: &str| std::fs::read_to_string(Path::new(ROOT).join("docs").join(name)).unwrap();
    let documents = document("guarantees.md") + &document("reliability.md") + &document("systems.md");
    let mut paths = Vec::new();
    ["engine", "server"].iter().for_each(|folder| sources(&Path::new(ROOT).join(folder), &mut paths));
    let sources: Vec<(PathBuf, String)> =
        paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect();
    let quoted = documents.split('`').skip(1).step_by(2);
    let is_test = |name: &&str| name.split_once("::").is_some_and(|(_, rest)| !is_module(rest));
    let names: Vec<&str> = quoted.filter(is_test).collect();
    assert!(names.len() > 100, "the documents name {} tests", names.len());
    let missing: Vec<&&str> = names.iter().filter(|name| !exists(name, &sources)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}

#[test]
fn every_link_of_the_documents_leads_to_a_file() {
    let root = Path::new(ROOT);
    let mut documents = vec![root.join("README.md"), root.join("bench/data/README.md")];
    for folder in ["docs", "docs/decisions"] {
        let entries = std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        documents.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    for document in documents {
        let text = std::fs::read_to_string(&document).unwrap();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            assert!(document.with_file_name(target).exists(), "{}: {target}", document.display());
        }
    }
}
