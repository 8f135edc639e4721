//! `--format`: what is told, in the shape that is asked for.

use isolab_runtime::engine::template::Template;
use serde_json::{Map, Value};

use crate::print;
use crate::voice::Failure;

/// A list: what its columns are called, and a map a row, by docker's names.
pub(crate) struct Listing {
    /// The name of a field and its heading, in the order of the usual table.
    pub(crate) columns: &'static [(&'static str, &'static str)],
    /// Fields that the usual table leaves out.
    pub(crate) more: &'static [(&'static str, &'static str)],
    pub(crate) rows: Vec<Map<String, Value>>,
}

impl Listing {
    /// Prints it: as a table where nothing is asked for, as `json`, or by a template, which `table` before it gives a
    /// heading.
    pub(crate) fn print(&self, format: Option<&str>) -> Result<(), Failure> {
        print::text(&self.text(format)?)
    }

    pub(crate) fn text(&self, format: Option<&str>) -> Result<String, Failure> {
        let format = format.unwrap_or("table").trim();
        match (format, format.strip_prefix("table")) {
            ("table", _) => Ok(self.table()),
            ("json", _) => Ok(self.rows.iter().map(|row| Value::Object(row.clone()).to_string() + "\n").collect()),
            (_, Some(template)) if template.starts_with(char::is_whitespace) => self.headed(template.trim_start()),
            _ => self.filled(format),
        }
    }

    fn table(&self) -> String {
        let cell = |row: &Map<String, Value>, name: &str| match row.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let mut rows = vec![self.columns.iter().map(|(_, heading)| (*heading).to_owned()).collect::<Vec<_>>()];
        rows.extend(self.rows.iter().map(|row| self.columns.iter().map(|(name, _)| cell(row, name)).collect()));
        print::columns(&rows)
    }

    fn headed(&self, template: &str) -> Result<String, Failure> {
        let all = self.columns.iter().chain(self.more);
        let headings = all.map(|(name, heading)| ((*name).to_owned(), (*heading).into())).collect();
        let template = read(template)?;
        let lines =
            std::iter::once(&headings).chain(&self.rows).map(|row| template.render(&Value::Object(row.clone())));
        let cells = |line: String| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
        let rows = lines.map(|line| line.map(cells)).collect::<Result<Vec<_>, _>>()?;
        Ok(print::columns(&rows))
    }

    fn filled(&self, template: &str) -> Result<String, Failure> {
        let template = read(template)?;
        let lines = self.rows.iter().map(|row| Ok(template.render(&Value::Object(row.clone()))? + "\n"));
        lines.collect()
    }
}

/// Shells hand `\t` and `\n` on as they are written.
fn read(template: &str) -> Result<Template, Failure> {
    Ok(Template::parse(&template.replace("\\t", "\t").replace("\\n", "\n"))?)
}

/// Prints documents: as JSON in lines of its own, as `json` in one, or each by a template.
pub(crate) fn documents(format: Option<&str>, all: Vec<Value>) -> Result<(), Failure> {
    let text = match format {
        None | Some("") => format!("{:#}\n", Value::Array(all)),
        Some("json") => format!("{}\n", Value::Array(all)),
        Some(template) => {
            let template = Template::parse(template)?;
            let lines = all.iter().map(|document| Ok(template.render(document)? + "\n"));
            lines.collect::<Result<String, Failure>>()?
        }
    };
    print::text(&text)
}

/// A row of texts, by the names of their fields.
pub(crate) fn row(fields: &[(&str, String)]) -> Map<String, Value> {
    fields.iter().map(|(name, text)| ((*name).to_owned(), Value::from(text.as_str()))).collect()
}

/// Notes as docker's lists have them: `a=1,b=2`.
pub(crate) fn labels<'a>(all: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::{Listing, row};

    fn text(format: Option<&str>) -> String {
        let rows = [("4f2e", "web"), ("77", "a longer one")];
        let rows = rows.map(|(id, name)| row(&[("ID", id.to_owned()), ("Names", name.to_owned())])).to_vec();
        let listing = Listing { columns: &[("ID", "CONTAINER ID"), ("Names", "NAMES")], more: &[], rows };
        listing.text(format).unwrap_or_else(|failure| format!("error: {failure}"))
    }

    #[test]
    fn a_list_has_the_shape_that_is_asked_for() {
        let table = "CONTAINER ID   NAMES\n4f2e           web\n77             a longer one\n";
        assert_eq!(text(None), table);
        assert_eq!(text(Some("table {{.ID}}\\t{{.Names}}")), table);
        assert_eq!(
            text(Some("json")),
            "{\"ID\":\"4f2e\",\"Names\":\"web\"}\n{\"ID\":\"77\",\"Names\":\"a longer one\"}\n"
        );
        assert_eq!(text(Some("{{.Names}}\\t{{upper .ID}}")), "web\t4F2E\na longer one\t77\n");
        assert!(text(Some("{{.Name}}")).contains("there is no Name, only ID, Names"));
    }
}
