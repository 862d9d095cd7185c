//! Where findings go: lines for people, or JSON objects for scripts.

use std::io::{self, BufWriter, Stdout, Write};

use serde_json::Value;

use crate::tools::error::ToolError;

/// Standard output in one of two forms.
pub struct Output {
    writer: BufWriter<Stdout>,
    is_json: bool,
}

impl Output {
    /// Lines for people, or JSON.
    pub fn new(is_json: bool) -> Output {
        Output { writer: BufWriter::new(io::stdout()), is_json }
    }

    /// One finding; only the form that is wanted is made.
    pub fn item(
        &mut self,
        json: impl FnOnce() -> Value,
        text: impl FnOnce() -> String,
    ) -> Result<(), ToolError> {
        match self.is_json {
            true => writeln!(self.writer, "{}", json())?,
            false => writeln!(self.writer, "{}", text())?,
        }
        Ok(())
    }

    /// A line that only people need.
    pub fn text(&mut self, text: impl FnOnce() -> String) -> Result<(), ToolError> {
        if !self.is_json {
            writeln!(self.writer, "{}", text())?;
        }
        Ok(())
    }

    /// Hands on what is gathered.
    pub fn flush(&mut self) -> Result<(), ToolError> {
        Ok(self.writer.flush()?)
    }
}
