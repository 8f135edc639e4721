//! Values as Go prints them (package fmt, verb `%v`), and texts with verbs in them.

use serde_json::Value;

/// Nobody wants a column wider than this.
const WIDEST: usize = 10_000;

/// A value as it is printed.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            // A whole number has no point for Go.
            Some(float) if float.fract() == 0.0 && float.abs() < 1e21 => format!("{float:.0}"),
            _ => number.to_string(),
        },
        Value::Array(all) => format!("[{}]", all.iter().map(inner).collect::<Vec<_>>().join(" ")),
        Value::Object(all) => {
            let pairs: Vec<String> = all.iter().map(|(name, value)| format!("{name}:{}", inner(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
    }
}

fn inner(value: &Value) -> String {
    if value.is_null() { "<nil>".to_owned() } else { plain(value) }
}

/// Values beside each other, with a blank between two of which none is a text.
pub(super) fn sprint(all: &[Value]) -> String {
    let mut text = String::new();
    let mut before: Option<&Value> = None;
    for value in all {
        if before.is_some_and(|before| !before.is_string() && !value.is_string()) {
            text.push(' ');
        }
        text.push_str(&plain(value));
        before = Some(value);
    }
    text
}

/// How a verb wants its value.
#[derive(Default)]
struct Shape {
    left: bool,
    zeros: bool,
    plus: bool,
    width: usize,
    precision: Option<usize>,
}

/// A text with verbs in it: `%s %v %d %q %t %x %X %f %g %c`, with flags, width and precision.
pub(super) fn sprintf(format: &str, all: &[Value]) -> Result<String, String> {
    let mut text = String::new();
    let mut letters = format.chars().peekable();
    let mut values = all.iter();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let mut shape = Shape::default();
        while let Some(flag) = letters.next_if(|letter| matches!(letter, '-' | '0' | '+' | ' ' | '#')) {
            match flag {
                '-' => shape.left = true,
                '0' => shape.zeros = true,
                '+' => shape.plus = true,
                _ => {}
            }
        }
        shape.width = digits(&mut letters)?.unwrap_or(0);
        if letters.next_if_eq(&'.').is_some() {
            shape.precision = Some(digits(&mut letters)?.unwrap_or(0));
        }
        match letters.next() {
            None => text.push_str("%!(NOVERB)"),
            Some('%') => text.push('%'),
            Some(verb) => match values.next() {
                None => text.extend(["%!", &verb.to_string(), "(MISSING)"]),
                Some(value) => text.push_str(&shape.fill(&one(verb, value, &shape))),
            },
        }
    }
    // Go complains in the text itself, too.
    for (number, value) in values.enumerate() {
        let before = if number == 0 { "%!(EXTRA " } else { ", " };
        text.extend([before, &plain(value)]);
    }
    Ok(text)
}

fn digits(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Option<usize>, String> {
    let mut number = None;
    while let Some(digit) = letters.next_if(char::is_ascii_digit).and_then(|digit| digit.to_digit(10)) {
        let next = number.unwrap_or(0) * 10 + digit as usize;
        if next > WIDEST {
            return Err(format!("a width of more than {WIDEST}"));
        }
        number = Some(next);
    }
    Ok(number)
}

fn one(verb: char, value: &Value, shape: &Shape) -> String {
    let signed = |text: String| if shape.plus && !text.starts_with('-') { format!("+{text}") } else { text };
    match (verb, value) {
        ('v', value) => plain(value),
        ('s', Value::String(text)) => match shape.precision {
            Some(most) => text.chars().take(most).collect(),
            None => text.clone(),
        },
        ('q', Value::String(text)) => Value::from(text.as_str()).to_string(),
        ('t', Value::Bool(value)) => value.to_string(),
        ('d', Value::Number(number)) if !number.is_f64() => signed(number.to_string()),
        ('x' | 'X', Value::Number(number)) if !number.is_f64() => {
            let (value, sign) =
                (number.as_i64().unwrap_or(0), if number.as_i64().is_some_and(|it| it < 0) { "-" } else { "" });
            let value = number.as_u64().unwrap_or(value.unsigned_abs());
            if verb == 'x' { format!("{sign}{value:x}") } else { format!("{sign}{value:X}") }
        }
        ('x', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat(),
        ('f', Value::Number(number)) => {
            signed(format!("{:.*}", shape.precision.unwrap_or(6), number.as_f64().unwrap_or(0.0)))
        }
        ('g', Value::Number(_)) | ('s', Value::Array(_) | Value::Object(_)) => plain(value),
        ('c', Value::Number(number)) => {
            let letter = number.as_u64().and_then(|number| char::from_u32(u32::try_from(number).ok()?));
            letter.unwrap_or(char::REPLACEMENT_CHARACTER).to_string()
        }
        (verb, value) => format!("%!{verb}({})", plain(value)),
    }
}

impl Shape {
    fn fill(&self, text: &str) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        match (self.left, self.zeros && text.starts_with(|letter: char| letter.is_ascii_digit() || letter == '-')) {
            (true, _) => format!("{text}{}", " ".repeat(missing)),
            (false, true) => match text.strip_prefix('-') {
                Some(number) => format!("-{}{number}", "0".repeat(missing)),
                None => format!("{}{text}", "0".repeat(missing)),
            },
            (false, false) => format!("{}{text}", " ".repeat(missing)),
        }
    }
}
