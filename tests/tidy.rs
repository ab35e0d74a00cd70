//! The house rules, as a test: layers point down, files are short and say what they own, and what
//! must not be below the io layer is not there. Each rule has a canary that proves it can fail.

use std::fs;
use std::path::{Path, PathBuf};

/// Layer of each top-level module. A file may use its own module and lower layers; modules of the
/// same layer only where `SIBLINGS` says so.
const LAYERS: &[(&str, u8)] = &[
    ("base", 0),
    ("wire", 1),
    ("batch", 1),
    ("log", 2),
    ("group", 2),
    ("catalog", 2),
    ("client", 2),
    ("io", 3),
    ("state", 3),
    ("api", 3),
    ("shard", 4),
    ("data_dir", 5),
    ("admin", 5),
    ("config", 5),
    ("logging", 5),
    ("server", 5),
    ("sim", 5),
    ("cli", 6),
];

/// Who may use whom on the same layer.
const SIBLINGS: &[(&str, &str)] = &[
    ("api", "state"),
    ("state", "api"),
    ("server", "admin"),
    ("server", "config"),
    ("server", "data_dir"),
    ("logging", "config"),
    ("sim", "data_dir"),
    ("config", "logging"),
];

/// Longest file, without its tests.
const FILE_LINES_MAX: usize = 800;

/// Longest function, outside of tests, where tables may be longer.
const FUNCTION_LINES_MAX: usize = 70;

/// Longest line.
const LINE_CHARS_MAX: usize = 100;

/// Words that have no place in the modules of these layers, and what to use instead.
const BANNED: &[(&str, std::ops::RangeInclusive<u8>, &str)] = &[
    ("Instant::now", 0..=2, "take the time as an argument"),
    ("SystemTime", 0..=2, "take the time as an argument"),
    ("thread::", 0..=2, "machines have no threads"),
    ("std::fs", 0..=2, "files are reached through base::dir"),
    (
        "HashMap",
        0..=2,
        "BTreeMap: iteration must not depend on a hash",
    ),
    (
        "HashSet",
        0..=2,
        "BTreeSet: iteration must not depend on a hash",
    ),
    (".unwrap()", 0..=6, "expect(\"why it holds\")"),
    ("println!", 0..=5, "tracing"),
    ("dbg!", 0..=6, "tracing"),
    ("todo!", 0..=6, "do it"),
    ("unimplemented!", 0..=6, "do it"),
    ("FIXME", 0..=6, "fix it"),
];

/// The only broken rules: module, word, and why it is right there.
const EXCEPTIONS: &[(&str, &str)] = &[
    // The client is not a machine: it keeps real time and real connections.
    ("client", "Instant::now"),
    ("client", "SystemTime"),
    ("client", "HashMap"),
    ("client", "HashSet"),
];

struct Source {
    path: PathBuf,
    module: String,
    layer: u8,
    /// Code without the tests.
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    assert!(
        found.len() > 50,
        "the walk found only {} files",
        found.len()
    );
    found
}

fn collect(root: &Path, dir: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            if name != "tests" && name != "testdata" && name != "conformance" {
                collect(root, &path, found);
            }
            continue;
        }
        let is_test = matches!(name.as_str(), "tests.rs" | "scripted.rs")
            || name.starts_with("test_")
            || name.ends_with("_test.rs");
        if !name.ends_with(".rs") || is_test || name == "lib.rs" || name == "main.rs" {
            continue;
        }
        let relative = path.strip_prefix(root).expect("below src");
        let first = relative.iter().next().unwrap_or_default().to_string_lossy();
        let module = first.trim_end_matches(".rs").to_owned();
        let layer = LAYERS.iter().find(|(m, _)| *m == module);
        let layer = layer
            .unwrap_or_else(|| panic!("{module} has no layer: add it to the table"))
            .1;
        let text = fs::read_to_string(&path).expect("src is readable");
        let text = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default()
            .to_owned();
        found.push(Source {
            path,
            module,
            layer,
            text,
        });
    }
}

/// Modules that a text imports from the crate.
fn imports(text: &str) -> Vec<String> {
    let mut modules = Vec::new();
    for part in text.split("crate::").skip(1) {
        let name: String = part
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        modules.push(name);
    }
    modules
}

fn layer_faults(module: &str, layer: u8, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for used in imports(text) {
        let Some((_, other)) = LAYERS.iter().find(|(m, _)| *m == used) else {
            continue;
        };
        let sibling = SIBLINGS.contains(&(module, used.as_str()));
        if used != module && *other >= layer && !(sibling && *other == layer) {
            faults.push(format!("{module} [{layer}] uses {used} [{other}]"));
        }
    }
    faults
}

fn banned_faults(module: &str, layer: u8, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (word, layers, instead) in BANNED {
        let excepted = EXCEPTIONS.contains(&(module, word));
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let used = code.filter(|line| line.contains(word)).count();
        if layers.contains(&layer) && !excepted && used > 0 {
            faults.push(format!("{word} in {module}: {instead}"));
        }
    }
    faults
}

fn shape_faults(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with("//!") {
        faults.push("does not open with //! and what it owns".to_owned());
    }
    if text.lines().count() > FILE_LINES_MAX {
        faults.push(format!("has {} lines", text.lines().count()));
    }
    for (index, line) in text.lines().enumerate() {
        // Rows of tables and patterns of macros stay whole.
        let row = line.contains("api!(")
            || line.contains(" | ")
            || line.contains("$tag")
            || line.contains("initial!(");
        if line.chars().count() > LINE_CHARS_MAX && !row {
            faults.push(format!("line {} is too long", index + 1));
        }
    }
    faults
}

fn function_faults(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut faults = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let opens = code.split_once("fn ").is_some_and(|(before, _)| {
            let mut words = before.split_whitespace();
            words
                .all(|word| word.starts_with("pub") || ["async", "const", "unsafe"].contains(&word))
        });
        // What is on one line is not long, and a signature may have no body.
        let ends = |line: &&str| {
            let end = line.strip_prefix(indent);
            end.is_some_and(|end| end == "}" || (end.starts_with(')') && end.ends_with(';')))
        };
        if opens && !code.ends_with(['}', ';']) {
            let length = 1 + lines[at..].iter().take_while(|line| !ends(line)).count();
            if length > FUNCTION_LINES_MAX {
                faults.push(format!(
                    "the function in line {} has {length} lines",
                    at + 1
                ));
            }
        }
    }
    faults
}

fn check(rule: impl Fn(&Source) -> Vec<String>) {
    let mut all = Vec::new();
    for source in sources() {
        let faults = rule(&source);
        all.extend(
            faults
                .into_iter()
                .map(|fault| format!("{}: {fault}", source.path.display())),
        );
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn layers_point_down() {
    assert_eq!(
        layer_faults("log", 2, "use crate::io::Io;").len(),
        1,
        "canary: up"
    );
    assert_eq!(
        layer_faults("log", 2, "use crate::group::Reply;").len(),
        1,
        "canary: sideways"
    );
    assert_eq!(
        layer_faults("log", 2, "use crate::base::Offset;").len(),
        0,
        "canary: down"
    );
    check(|source| layer_faults(&source.module, source.layer, &source.text));
}

#[test]
fn nothing_banned_is_used() {
    assert_eq!(
        banned_faults("log", 2, "let x = y.unwrap();").len(),
        1,
        "canary"
    );
    assert_eq!(
        banned_faults("log", 2, "// y.unwrap()").len(),
        0,
        "canary: comments may"
    );
    check(|source| banned_faults(&source.module, source.layer, &source.text));
}

#[test]
fn files_are_short_and_say_what_they_own() {
    assert_eq!(shape_faults("fn main() {}").len(), 1, "canary: no header");
    assert_eq!(
        shape_faults(&format!("//! x\n{}", "\n".repeat(900))).len(),
        1,
        "canary: long"
    );
    assert_eq!(
        shape_faults(&format!("//! {}", "x".repeat(100))).len(),
        1,
        "canary: wide"
    );
    check(|source| shape_faults(&source.text));
}

/// The example is to be copied, so the same holds for it; its modules have no layers.
#[test]
fn the_example_is_as_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/order-events");
    let mut folders = vec![root.join("src"), root.join("tests")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the example is readable") {
            let path = entry.expect("the example is readable").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).expect("the example is readable");
            let mut faults = shape_faults(&text);
            if path.starts_with(root.join("src")) {
                let code = text.split("#[cfg(test)]\nmod tests {").next();
                faults.extend(banned_faults("cli", 6, code.unwrap_or_default()));
            }
            assert!(faults.is_empty(), "{}: {faults:?}", path.display());
            files += 1;
        }
    }
    assert!(files > 20, "the walk found only {files} files");
}

#[test]
fn functions_are_short() {
    let function =
        |lines: usize| format!("impl X {{\n    fn x() {{\n{}    }}\n}}", "\n".repeat(lines));
    assert_eq!(function_faults(&function(68)).len(), 0, "canary: short");
    assert_eq!(function_faults(&function(69)).len(), 1, "canary: long");
    let signature = format!("fn x(\n) -> u8;\n{}", function(1));
    assert_eq!(function_faults(&signature).len(), 0, "canary: no body");
    check(|source| function_faults(&source.text));
}
