//! Stats of one znode fit together, whichever replica showed them: with growing zxids nothing goes
//! back, the same transaction means the same version, and its children's changes are counted. No I/O.

use std::collections::{BTreeMap, HashMap};

use znodefs::path::parent;
use znodefs::{Stat, Zxid};

use super::report::Subject;
use super::timeline::{Act, REPLY, Sight, Timelines, What};
use super::{History, Report};

const RULE: &str = "stats of one znode fit together";

pub(super) fn check(history: &History, timelines: &Timelines, report: &mut Report) {
    let children = changes_of_children(timelines);
    for (path, timeline) in timelines {
        let mut last: Option<(Zxid, Stat)> = None;
        for point in &timeline.points {
            let What::Sight(Sight::Shown(stat, _)) = &point.what else { continue };
            // Inside a multi more may follow in the same transaction.
            if point.order != REPLY {
                continue;
            }
            let none = Vec::new();
            let changed = children.get(path.as_str()).unwrap_or(&none);
            let wrong = compare_children(stat, changed, point.zxid)
                .or_else(|| last.as_ref().and_then(|last| compare(last, *stat)));
            if let Some(wrong) = wrong {
                let description = format!("{path} at {}: {wrong}", point.zxid);
                report.add(history, RULE, description, Subject::Znode(path, point.zxid));
                break;
            }
            last = Some((point.zxid, *stat));
        }
    }
}

/// When children were certainly created or deleted, by their parent.
fn changes_of_children(timelines: &Timelines) -> HashMap<&str, Vec<Zxid>> {
    let mut changes: BTreeMap<&str, Vec<Zxid>> = BTreeMap::new();
    for (path, timeline) in timelines {
        let above = parent(path).unwrap_or("/");
        for point in &timeline.points {
            if matches!(&point.what, What::Act(Act::Create { .. } | Act::Delete { .. })) {
                changes.entry(above).or_default().push(point.zxid);
            }
        }
    }
    changes.values_mut().for_each(|zxids| zxids.sort());
    changes.into_iter().collect()
}

/// `pzxid` is at least the last known change of a child.
fn compare_children(stat: &Stat, changed: &[Zxid], zxid: Zxid) -> Option<String> {
    let count = changed.partition_point(|change| *change <= zxid);
    let last = *changed[..count].last()?;
    if stat.pzxid < last && stat.czxid < last {
        return Some(format!("pzxid {} is shown, but a child changed at {last}", stat.pzxid));
    }
    None
}

fn compare((zxid, before): &(Zxid, Stat), after: Stat) -> Option<String> {
    if before.czxid != after.czxid {
        return (before.czxid > after.czxid)
            .then(|| format!("czxid went back to {} from {}", after.czxid, before.czxid));
    }
    let pairs = [
        ("mzxid", before.mzxid.0, after.mzxid.0),
        ("pzxid", before.pzxid.0, after.pzxid.0),
        ("version", before.version.into(), after.version.into()),
        ("cversion", before.cversion.into(), after.cversion.into()),
        ("aversion", before.aversion.into(), after.aversion.into()),
    ];
    if let Some((what, old, new)) = pairs.into_iter().find(|(_, old, new)| old > new) {
        return Some(format!("{what} went back to 0x{new:x} from 0x{old:x} at {zxid}"));
    }
    if before.ctime != after.ctime || before.ephemeral_owner != after.ephemeral_owner {
        return Some(format!("ctime or owner differ from those at {zxid}"));
    }
    let same_data = before.mzxid == after.mzxid;
    let data = |stat: &Stat| (stat.version, stat.mtime, stat.data_length);
    if same_data && data(before) != data(&after) {
        return Some(format!("mzxid is the same as at {zxid}, version or mtime are not"));
    }
    let children = |stat: &Stat| (stat.cversion, stat.num_children);
    if before.pzxid == after.pzxid && children(before) != children(&after) {
        return Some(format!("pzxid is the same as at {zxid}, the children's counts are not"));
    }
    if before.cversion == after.cversion && before.pzxid != after.pzxid {
        return Some(format!("cversion is the same as at {zxid}, pzxid is not"));
    }
    None
}
