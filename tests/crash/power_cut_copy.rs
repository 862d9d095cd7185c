//! Files copied into a mount whose replica loses its power again and again. The mount is a process
//! of its own.

use std::path::Path;

use znodefs_tests::binaries::source_directory;
use znodefs_tests::{Mount, Random, WireClient};

use crate::copy::{Copy, GiveUp};
use crate::machine::Machine;
use crate::rounds;

/// Between two power cuts there are at most so many changes of the disk.
const CHANGES_MAX: u64 = 150;

/// Copies `source` while the power is cut again and again, each time at a random change of the disk.
fn survives_power_cuts(source: &Path, random: &mut Random) {
    let mut machine = Machine::new(random.next_u64());
    let address = machine.address();
    let mount = Mount::of(&address, &[]);
    let copy = Copy::new(source, mount.join("copy"), "/copy");
    let mut cuts = 0;
    std::thread::scope(|scope| {
        let _give_up = GiveUp(&copy);
        let copier = scope.spawn(|| copy.run());
        while !copier.is_finished() {
            copy.wait_for_progress(|| copier.is_finished());
            let change = random.between(0, CHANGES_MAX);
            machine.cut_power(change, || copier.is_finished());
            let returned = copy.returned();
            machine.restart();
            cuts += 1;
            copy.assert_are_there(&returned, &mut WireClient::connect(&address));
        }
    });
    let mut client = WireClient::connect(&address);
    copy.assert_are_there(&copy.returned(), &mut client);
    copy.assert_none_is_half(&mut client);
    eprintln!("{cuts} power cuts, {} of {} copies returned", copy.returned().len(), copy.len());
}

#[test]
fn copied_files_survive_power_cuts_of_the_replica() {
    let mut random = Random::announced();
    for _ in 0..rounds() {
        survives_power_cuts(&source_directory().join("server"), &mut random);
        survives_power_cuts(Path::new("/usr/share/zoneinfo/Europe"), &mut random);
    }
}
