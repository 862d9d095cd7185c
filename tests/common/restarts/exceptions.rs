//! The list of tests of clients that are not run on such an ensemble, or not with every restart, each with
//! its reason.

const LIST: &str = include_str!("exceptions.txt");

/// What is different for a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// It is not run.
    LeftOut,
    /// The leader stays: a new one grants every session its whole timeout once more, so that none would
    /// expire.
    LeaderStays,
}

/// One line of the list.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// `binary::module`, without a module for what is in the binary's first file.
    pub module: &'static str,
    /// The test's function; `*` for all of the module's.
    pub test: &'static str,
    /// What is different.
    pub exception: Exception,
    /// Why.
    pub reason: &'static str,
}

/// All lines.
///
/// # Panics
/// If a line has not the list's form.
pub fn exceptions() -> Vec<Listed> {
    let lines = LIST.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let parse = |line: &'static str| {
        let mut columns = line.splitn(3, '|').map(str::trim);
        let (module, test) = columns.next()?.rsplit_once("::")?;
        let exception = match columns.next()? {
            "left out" => Exception::LeftOut,
            "the leader stays" => Exception::LeaderStays,
            _ => return None,
        };
        Some(Listed { module, test, exception, reason: columns.next()? })
    };
    let form = "MODULE::TEST | left out or the leader stays | REASON";
    lines.map(|line| parse(line).unwrap_or_else(|| panic!("not {form}: {line}"))).collect()
}

impl Listed {
    /// Whether it names this test.
    pub fn names(&self, module: &str, test: &str) -> bool {
        self.module == module && (self.test == "*" || self.test == test)
    }
}
