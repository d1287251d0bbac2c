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
        _ => "engine/src",
    };
    sources.iter().any(|(path, text)| {
        let module = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        path.to_string_lossy().contains(tree) && parts.contains(&module) && text.contains(&function)
    })
}

#[test]
fn the_tests_that_the_guarantees_name_exist() {
    let guarantees = std::fs::read_to_string(Path::new(ROOT).join("docs/guarantees.md")).unwrap();
    let mut paths = Vec::new();
    ["engine", "server"].iter().for_each(|folder| sources(&Path::new(ROOT).join(folder), &mut paths));
    let sources: Vec<(PathBuf, String)> =
        paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect();
    let quoted = guarantees.split('`').skip(1).step_by(2);
    let names: Vec<&str> = quoted.filter(|name| name.contains("::") && !name.ends_with("::")).collect();
    assert!(names.len() > 20, "the document names {} tests", names.len());
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
