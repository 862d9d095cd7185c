//! The syntax of a zoo.cfg: Java properties, as far as anybody writes them by hand. Knows nothing of
//! the keys. No I/O.

/// One `key=value` of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// The line it starts on, from 1.
    pub line: usize,
    /// Its key.
    pub key: String,
    /// Its value without surrounding blanks; may be empty.
    pub value: String,
}

/// Reads all properties of a text, in order. Comments start with `#` or `!`; the key ends at the first
/// `=`, `:` or blank; a backslash at a line's end joins the next line to it.
pub fn parse(text: &str) -> Vec<Property> {
    let mut properties = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, first)) = lines.next() {
        let first = first.trim();
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut whole = first.to_string();
        while whole.ends_with('\\') {
            whole.pop();
            match lines.next() {
                Some((_, continuation)) => whole.push_str(continuation.trim()),
                None => break,
            }
        }
        let (key, value) = split(&whole);
        properties.push(Property { line: index + 1, key: key.into(), value: value.into() });
    }
    properties
}

fn split(line: &str) -> (&str, &str) {
    let Some(end) = line.find(|c: char| c == '=' || c == ':' || c.is_whitespace()) else {
        return (line, "");
    };
    let rest = line[end..].trim_start();
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (&line[..end], rest.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(usize, String, String)> {
        parse(text).into_iter().map(|p| (p.line, p.key, p.value)).collect()
    }

    #[test]
    fn keys_values_comments_and_continuations_are_read() {
        let text = "# a comment\n\n tickTime = 2000 \n! more\ndataDir=/var/a b\nserver.1=h:1:2;3\n\
                    list=a,\\\n  b\nempty=\nlone\nx: y";
        let expected = [
            (3, "tickTime", "2000"),
            (5, "dataDir", "/var/a b"),
            (6, "server.1", "h:1:2;3"),
            (7, "list", "a,b"),
            (9, "empty", ""),
            (10, "lone", ""),
            (11, "x", "y"),
        ];
        let expected: Vec<_> =
            expected.iter().map(|(l, k, v)| (*l, k.to_string(), v.to_string())).collect();
        assert_eq!(pairs(text), expected);
    }
}
