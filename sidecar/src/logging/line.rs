//! One event as one line.

use super::{LINE_BYTES_MAX, levels::Level};
use std::fmt::{self, Write as _};
use tracing::{
    Event,
    field::{Field, Visit},
};

/// RFC 3339, UTC, milliseconds.
pub fn timestamp(out: &mut impl fmt::Write, at: time::OffsetDateTime) {
    let _ = write!(
        out,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.millisecond()
    );
}

pub(super) fn text_line(line: &mut String, level: Level, logger: &str, event: &Event<'_>) {
    timestamp(line, time::OffsetDateTime::now_utc());
    let _ = write!(line, " {:<7} {logger}: ", level.name());
    let mut fields = TextFields { message: String::new(), rest: String::new() };
    event.record(&mut fields);
    line.push_str(&fields.message);
    line.push_str(&fields.rest);
}

struct TextFields {
    message: String,
    rest: String,
}

impl TextFields {
    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if field.name() == "message" {
            // an embedded line break would forge a line
            for c in value.to_string().chars() {
                if c.is_control() { self.message.extend(c.escape_default()) } else { self.message.push(c) }
            }
        } else {
            let text = value.to_string();
            let plain = !text.is_empty() && !text.chars().any(|c| c.is_control() || c == ' ' || c == '"');
            let _ = if plain {
                write!(self.rest, " {}={text}", field.name())
            } else {
                write!(self.rest, " {}={text:?}", field.name())
            };
        }
    }
}

impl Visit for TextFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, format_args!("{value}"));
    }
}

pub(super) fn json_line(line: &mut String, level: Level, logger: &str, event: &Event<'_>) {
    line.push_str("{\"time\":\"");
    timestamp(line, time::OffsetDateTime::now_utc());
    let _ = write!(line, "\",\"level\":\"{}\",\"logger\":\"{logger}\"", level.name());
    event.record(&mut JsonFields(line));
    line.push('}');
}

struct JsonFields<'a>(&'a mut String);

impl JsonFields<'_> {
    fn text(&mut self, field: &Field, value: &str) {
        let mut end = value.len().min(LINE_BYTES_MAX / 8);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        let _ = write!(
            self.0,
            ",{}:{}",
            serde_json::Value::from(field.name()),
            serde_json::Value::from(&value[..end])
        );
    }
}

impl Visit for JsonFields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        let _ = write!(self.0, ",{}:{value}", serde_json::Value::from(field.name()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        let _ = write!(self.0, ",{}:{value}", serde_json::Value::from(field.name()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        let _ = write!(self.0, ",{}:{value}", serde_json::Value::from(field.name()));
    }
}

pub(super) fn cut(line: &mut String) {
    if line.len() > LINE_BYTES_MAX {
        let mut end = LINE_BYTES_MAX;
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
    }
}
