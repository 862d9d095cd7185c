//! The list of tests of clients that are not run on such an ensemble, each with its reason.

const LIST: &str = include_str!("left_out.txt");

/// One line of the list.
#[derive(Clone, Copy, Debug)]
pub struct LeftOut {
    /// `binary::module`, without a module for what is in the binary's first file.
    pub module: &'static str,
    /// The test's function; `*` for all of the module's.
    pub test: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// All lines.
///
/// # Panics
/// If a line is not `MODULE::TEST | REASON`.
pub fn left_out() -> Vec<LeftOut> {
    let lines = LIST.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let parse = |line: &'static str| {
        let (name, reason) = line.split_once(" | ")?;
        let (module, test) = name.trim().rsplit_once("::")?;
        Some(LeftOut { module, test, reason: reason.trim() })
    };
    lines
        .map(|line| parse(line).unwrap_or_else(|| panic!("no MODULE::TEST | REASON: {line}")))
        .collect()
}

impl LeftOut {
    /// Whether it names this test.
    pub fn names(&self, module: &str, test: &str) -> bool {
        self.module == module && (self.test == "*" || self.test == test)
    }
}
