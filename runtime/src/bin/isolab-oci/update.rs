//! `update`: limits from a file or from options, as the configuration would say them.

use std::io::{self, Read};

use clap::Args;
use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value};

use crate::voice::Failure;

/// What to change. What is not named stays as it is.
#[derive(Debug, Args)]
pub(crate) struct Limits {
    /// Read limits from a file in the form of `linux.resources`, `-` for standard input; the options below are then
    /// not looked at
    #[arg(long, short, value_name = "FILE")]
    resources: Option<String>,
    /// Memory, in bytes or with a unit: 512m, 1g; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = bytes)]
    memory: Option<i64>,
    /// Memory and swap together; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = bytes)]
    memory_swap: Option<i64>,
    /// Memory that is taken from it last
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = bytes)]
    memory_reservation: Option<i64>,
    /// The length of a period in which it may use its quota of CPU time, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// How much CPU time it may use in a period, in microseconds; -1 for no limit
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Its share of the CPUs where others want them too; 1024 is the usual one
    #[arg(long, value_name = "SHARE")]
    cpu_share: Option<u64>,
    /// The CPUs that it may use: 0-3,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// The memory nodes that it may use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Processes and threads; -1 for no limit
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Its share of disks where others want them too, 10 to 1000
    #[arg(long, value_name = "WEIGHT", value_parser = clap::value_parser!(u16).range(10..=1000))]
    blkio_weight: Option<u16>,
    /// The container's name
    pub(crate) id: String,
}

impl Limits {
    /// The limits in the configuration's form.
    pub(crate) fn resources(&self) -> Result<LinuxResources, Failure> {
        let (from, value) = match self.resources.as_deref() {
            None => ("the command line", Ok(self.named())),
            Some("-") => {
                let mut text = String::new();
                let read = io::stdin().read_to_string(&mut text);
                read.map_err(|source| Failure::Read { from: "standard input".to_owned(), source })?;
                ("standard input", serde_json::from_str(&text))
            }
            Some(path) => {
                let failed = |source| Failure::Read { from: path.to_owned(), source };
                (path, serde_json::from_str(&std::fs::read_to_string(path).map_err(failed)?))
            }
        };
        let failed = |source| Failure::Limits { from: from.to_owned(), source };
        value.and_then(serde_json::from_value).map_err(failed)
    }

    /// Those that the options name.
    fn named(&self) -> Value {
        let mut all = Map::new();
        let mut set = |group: &str, field: &str, value: Option<Value>| {
            if let (Some(value), Some(group)) =
                (value, all.entry(group).or_insert_with(|| Value::Object(Map::new())).as_object_mut())
            {
                group.insert(field.to_owned(), value);
            }
        };
        set("memory", "limit", self.memory.map(Value::from));
        set("memory", "swap", self.memory_swap.map(Value::from));
        set("memory", "reservation", self.memory_reservation.map(Value::from));
        set("cpu", "period", self.cpu_period.map(Value::from));
        set("cpu", "quota", self.cpu_quota.map(Value::from));
        set("cpu", "shares", self.cpu_share.map(Value::from));
        set("cpu", "cpus", self.cpuset_cpus.clone().map(Value::from));
        set("cpu", "mems", self.cpuset_mems.clone().map(Value::from));
        set("pids", "limit", self.pids_limit.map(Value::from));
        set("blockIO", "weight", self.blkio_weight.map(Value::from));
        all.retain(|_, group| group.as_object().is_some_and(|group| !group.is_empty()));
        Value::Object(all)
    }
}

/// A count of bytes, in units of 1024: `512m`, `1g`, or -1.
fn bytes(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is no size such as 1048576, 512m or 1g, and not -1");
    if text == "-1" {
        return Ok(-1);
    }
    let lower = text.to_ascii_lowercase();
    let digits = lower.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let number: i64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn a_size_has_a_unit_or_none() {
        for (text, expected) in [("4096", 4096), ("512m", 512 << 20), ("1G", 1 << 30), ("2KiB", 2048), ("-1", -1)] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "m", "-2", "1x", "1.5g", "99999999999999999999", "9999999999t", "é"] {
            assert!(bytes(text).is_err(), "{text:?}");
        }
    }
}
