//! The znodes of a tree, each with what lies below it.

use serde_json::json;

use super::InspectArguments;
use super::output::Output;
use crate::tools::describe::{self, is_below};
use crate::tools::error::ToolError;
use crate::tools::timestamp;
use crate::tree::{DataTree, NodeRef, OwnerKind};

/// A znode on the way through the tree, and what was found below it so far.
struct Place<'a> {
    path: String,
    node: NodeRef<'a>,
    /// The children not visited yet, the next one last.
    children: Vec<&'a str>,
    below: Below,
}

/// What lies below a znode, itself included.
#[derive(Clone, Copy, Default)]
struct Below {
    znodes: u64,
    bytes: u64,
}

/// Lists the znodes, parents before children, children by name.
pub fn list(
    tree: &DataTree,
    arguments: &InspectArguments,
    out: &mut Output,
) -> Result<(), ToolError> {
    let top = arguments.path.as_deref().map_or("/", |path| path.trim_end_matches('/'));
    let top = if top.is_empty() { "/" } else { top };
    let Some(node) = tree.node(top) else {
        return Err(ToolError::Failed(format!("there is no znode {top}")));
    };
    let totals = totals(tree, node, top);
    let level = |path: &str| path.trim_end_matches('/').matches('/').count();
    let deepest = arguments.depth.map_or(usize::MAX, |depth| level(top) + depth);
    for (path, below) in totals {
        if level(&path) > deepest || !is_below(&path, top) {
            continue;
        }
        if let Some(node) = tree.node(&path) {
            show(node, &path, below, arguments.data, out)?;
        }
    }
    Ok(())
}

/// Every path with what lies below it, parents first.
fn totals(tree: &DataTree, node: NodeRef<'_>, top: &str) -> Vec<(String, Below)> {
    let mut found: Vec<(String, Below)> = Vec::new();
    let mut places = Vec::new();
    let mut way = vec![enter(node, top.to_owned())];
    found.push((top.to_owned(), Below::default()));
    places.push(0);
    while let Some(place) = way.last_mut() {
        if let Some(name) = place.children.pop() {
            let path = match place.path.as_str() {
                "/" => format!("/{name}"),
                parent => format!("{parent}/{name}"),
            };
            if let Some(child) = tree.node(&path) {
                places.push(found.len());
                found.push((path.clone(), Below::default()));
                way.push(enter(child, path));
            }
            continue;
        }
        let length = place.node.data().map_or(0, <[u8]>::len) as u64;
        let mut below = place.below;
        below.znodes += 1;
        below.bytes += length;
        way.pop();
        if let Some(number) = places.pop() {
            found[number].1 = below;
        }
        if let Some(parent) = way.last_mut() {
            parent.below.znodes += below.znodes;
            parent.below.bytes += below.bytes;
        }
    }
    found
}

fn enter(node: NodeRef<'_>, path: String) -> Place<'_> {
    let mut children: Vec<&str> = node.children().collect();
    children.sort_unstable_by(|one, other| other.cmp(one));
    Place { path, node, children, below: Below::default() }
}

fn show(
    node: NodeRef<'_>,
    path: &str,
    below: Below,
    with_data: bool,
    out: &mut Output,
) -> Result<(), ToolError> {
    let stat = node.stat();
    out.item(
        || {
            let mut value = json!({
                "kind": "znode", "path": path, "version": stat.version,
                "cversion": stat.cversion, "aversion": stat.aversion,
                "czxid": stat.czxid.to_string(), "mzxid": stat.mzxid.to_string(),
                "pzxid": stat.pzxid.to_string(),
                "ctime": timestamp::readable(stat.ctime), "mtime": timestamp::readable(stat.mtime),
                "children": stat.num_children,
                "subtree_znodes": below.znodes, "subtree_bytes": below.bytes,
            });
            describe::merge(&mut value, describe::owner_json(node.kind().to_stored()));
            describe::merge(&mut value, describe::data_json(node.data(), with_data));
            value
        },
        || {
            let kind = match node.kind() {
                OwnerKind::Persistent => String::new(),
                OwnerKind::Ephemeral(session) => format!(" ephemeral of {session}"),
                OwnerKind::Container => " container".to_owned(),
                OwnerKind::Ttl { ttl_ms } => format!(" ttl {ttl_ms} ms"),
            };
            let data = describe::data_text(node.data(), with_data);
            let subtree = match below.znodes {
                1 => String::new(),
                count => format!("  [{count} znodes, {} bytes with what is below]", below.bytes),
            };
            format!("  {path}{kind} {data} version {}{subtree}", stat.version)
        },
    )
}
