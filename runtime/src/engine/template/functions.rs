//! What can be called: Go's own functions, and those that docker adds.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::eval::is_true;
use super::printf::{plain, sprint, sprintf};

/// Nobody pads wider.
const WIDEST: usize = 10_000;

const NAMES: [&str; 23] = [
    "and", "eq", "ge", "gt", "index", "join", "json", "le", "len", "lower", "lt", "ne", "not", "or", "pad", "print",
    "printf", "println", "slice", "split", "title", "truncate", "upper",
];

pub(super) fn is_function(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls a function. An error says what is wrong.
pub(super) fn call(name: &str, arguments: Vec<Value>) -> Result<Value, String> {
    let mut arguments = arguments;
    match (name, arguments.as_mut_slice()) {
        ("json", [value]) => Ok(value.to_string().into()),
        ("upper", [Value::String(text)]) => Ok(text.to_uppercase().into()),
        ("lower", [Value::String(text)]) => Ok(text.to_lowercase().into()),
        ("title", [Value::String(text)]) => Ok(title(text).into()),
        ("split", [Value::String(text), Value::String(by)]) => Ok(split(text, by)),
        ("join", [Value::Array(all), Value::String(between)]) => {
            let all: Vec<String> = all.iter().map(plain).collect();
            Ok(all.join(between).into())
        }
        ("join", [Value::Null, Value::String(_)]) => Ok("".into()),
        ("pad", [Value::String(text), before, after]) => {
            let (before, after) = (count(before)?, count(after)?);
            // docker pads nothing where nothing is.
            let padded = format!("{}{text}{}", " ".repeat(before), " ".repeat(after));
            Ok(if text.is_empty() { "" } else { padded.as_str() }.into())
        }
        ("truncate", [Value::String(text), most]) => {
            let most = count(most)?;
            Ok(text.chars().take(most).collect::<String>().into())
        }
        ("len", [value]) => length(value),
        ("index", [value, keys @ ..]) => keys.iter().try_fold(value.take(), index),
        ("slice", [value, bounds @ ..]) if bounds.len() <= 2 => slice(value, bounds),
        ("not", [value]) => Ok(Value::Bool(!is_true(value))),
        ("and", [rest @ .., last]) => Ok(rest.iter_mut().find(|value| !is_true(value)).unwrap_or(last).take()),
        ("or", [rest @ .., last]) => Ok(rest.iter_mut().find(|value| is_true(value)).unwrap_or(last).take()),
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            let found = others.iter().map(|other| Ok(compare(first, other)? == Some(Ordering::Equal)));
            found.collect::<Result<Vec<_>, String>>().map(|found| found.contains(&true).into())
        }
        ("ne", [a, b]) => Ok((compare(a, b)? != Some(Ordering::Equal)).into()),
        ("lt", [a, b]) => Ok((order(a, b)? == Ordering::Less).into()),
        ("le", [a, b]) => Ok((order(a, b)? != Ordering::Greater).into()),
        ("gt", [a, b]) => Ok((order(a, b)? == Ordering::Greater).into()),
        ("ge", [a, b]) => Ok((order(a, b)? != Ordering::Less).into()),
        ("print", all) => Ok(sprint(all).into()),
        ("println", all) => Ok((words(all)
            + "
")
        .into()),
        ("printf", [Value::String(format), all @ ..]) => sprintf(format, all).map(Value::from),
        (name, all) => {
            let given: Vec<&str> = all.iter().map(|value| kind(value)).collect();
            let given = if given.is_empty() { "nothing".to_owned() } else { given.join(" and ") };
            Err(format!("{name} can do nothing with {given}"))
        }
    }
}

fn words(all: &[Value]) -> String {
    all.iter().map(plain).collect::<Vec<_>>().join(" ")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "what is not there",
        Value::Bool(_) => "a truth",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// The first letter of each word in upper case.
fn title(text: &str) -> String {
    let mut first = true;
    let mut titled = String::new();
    for letter in text.chars() {
        if first {
            titled.extend(letter.to_uppercase());
        } else {
            titled.push(letter);
        }
        first = !(letter.is_alphanumeric() || letter == '_' || letter == '\'');
    }
    titled
}

/// Between its letters where nothing is said, as Go does.
fn split(text: &str, by: &str) -> Value {
    if by.is_empty() {
        return text.chars().map(|letter| Value::from(letter.to_string())).collect();
    }
    text.split(by).map(Value::from).collect()
}

fn count(value: &Value) -> Result<usize, String> {
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number.filter(|number| *number <= WIDEST).ok_or_else(|| format!("{} is no number from 0 to {WIDEST}", plain(value)))
}

fn length(value: &Value) -> Result<Value, String> {
    match value {
        Value::String(text) => Ok(text.len().into()),
        Value::Array(all) => Ok(all.len().into()),
        Value::Object(all) => Ok(all.len().into()),
        Value::Null => Ok(0.into()),
        other => Err(format!("{} has no length", kind(other))),
    }
}

fn index(value: Value, key: &Value) -> Result<Value, String> {
    match (value, key) {
        // Go answers what is nothing of its kind; of labels and their like that is a text without letters.
        (Value::Object(mut all), Value::String(name)) => Ok(all.remove(name).unwrap_or_else(|| "".into())),
        (Value::Null, Value::String(_)) => Ok("".into()),
        (Value::Array(mut all), key @ Value::Number(_)) => {
            let number = key.as_u64().and_then(|number| usize::try_from(number).ok());
            match number.filter(|number| *number < all.len()) {
                Some(number) => Ok(all.swap_remove(number)),
                None => Err(format!("a list of {} has no number {}", all.len(), plain(key))),
            }
        }
        (other, key) => Err(format!("{} has no place called {}", kind(&other), plain(key))),
    }
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, String> {
    let whole = length(value)?.as_u64().unwrap_or(0) as usize;
    let bound = |number: usize, default| bounds.get(number).map_or(Ok(default), count);
    let (from, to) = (bound(0, 0)?, bound(1, whole)?);
    let outside = || format!("{from} to {to} is no part of {whole}");
    match value {
        Value::String(text) => text.get(from..to).map(Value::from).ok_or_else(outside),
        Value::Array(all) => all.get(from..to).map(|part| part.to_vec().into()).ok_or_else(outside),
        other => Err(format!("{} has no parts", kind(other))),
    }
}

/// How two values of one kind stand to each other; nothing where they differ without one being less.
fn compare(a: &Value, b: &Value) -> Result<Option<Ordering>, String> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Ok((a == b).then_some(Ordering::Equal)),
        (Value::String(a), Value::String(b)) => Ok(Some(a.cmp(b))),
        (Value::Number(a), Value::Number(b)) => Ok(numbers(a, b)),
        (Value::Null, Value::Null) => Ok(Some(Ordering::Equal)),
        (Value::Null, _) | (_, Value::Null) => Ok(None),
        (a, b) => Err(format!("{} and {} cannot be compared", kind(a), kind(b))),
    }
}

fn order(a: &Value, b: &Value) -> Result<Ordering, String> {
    match compare(a, b)? {
        Some(order) if !a.is_boolean() && !a.is_null() => Ok(order),
        _ => Err(format!("of {} and {} none is less", kind(a), kind(b))),
    }
}

fn numbers(a: &Number, b: &Number) -> Option<Ordering> {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}
