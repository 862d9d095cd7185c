//! What `mount/SEMANTICS.md` shows is what happens: its examples are run, each on an empty tree.

use znodefs_tests::{Backend, World};

use crate::documented::{assert_prints, examples};

fn every_example_prints_what_the_page_says(backend: Backend) {
    let examples = examples("mount/SEMANTICS.md");
    assert!(examples.len() >= 6, "the page has lost its examples");
    for example in examples {
        let world = World::new(backend);
        assert_prints(&world.mount.shell(), &example);
    }
}

#[test]
fn every_example_of_the_semantics_is_true_on_znoded() {
    every_example_prints_what_the_page_says(Backend::Znoded);
}

#[test]
fn every_example_of_the_semantics_is_true_on_zookeeper() {
    every_example_prints_what_the_page_says(Backend::ZooKeeper);
}
