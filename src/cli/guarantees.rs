//! `forebay guarantees`: what this broker promises, as the README has it; the README is the only
//! place where it is written. `tests/guarantees.rs` holds it to naming tests that exist.

use super::output::{Failure, Output};

const README: &str = include_str!("../../README.md");

/// The heading of the section.
const HEADING: &str = "## What is promised\n";

/// Prints the section without its heading.
pub fn run(output: &mut Output) -> Result<(), Failure> {
    output.line(section(README).trim())
}

/// The text between the heading and the next one.
fn section(readme: &str) -> &str {
    let (_, after) = readme.split_once(HEADING).unwrap_or_default();
    after.split_once("\n## ").map_or(after, |(text, _)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_is_found_and_ends() {
        assert_eq!(section("# a\n## What is promised\nx\n\n## b\ny"), "x\n");
        assert!(section(README).contains("| `acks=all`"));
        assert!(!section(README).contains("\n## "));
    }
}
