//! The tour in the README, as a newcomer follows it: command after command on one tree.

use znodefs_tests::binaries::source_directory;
use znodefs_tests::{Backend, World, binary};

use crate::documented::{Example, assert_prints, examples};

#[test]
fn the_tour_of_the_readme_prints_what_it_says() {
    let world = World::new(Backend::Embedded);
    let programs = binary("znode").parent().expect("a directory").display().to_string();
    let recipes = source_directory().join("scripts/recipes");
    let shell = znodefs_tests::Shell::new(world.mount.parent().expect("a directory"))
        .variable("PATH", format!("{programs}:{}:/usr/bin:/bin", recipes.display()))
        .variable("ZNODE_SERVERS", &world.address);
    let examples = examples("README.md");
    assert!(examples.len() >= 5, "the page has lost its tour");
    let joined = |part: fn(&Example) -> &str| -> String {
        examples.iter().map(part).collect::<Vec<_>>().join("")
    };
    let script = examples.iter().map(|example| &*example.script).collect::<Vec<_>>().join("\n");
    assert_prints(&shell, &Example { script, printed: joined(|example| &example.printed) });
}
