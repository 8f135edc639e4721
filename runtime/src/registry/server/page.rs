//! The page for people: what is in the registry, of what layers, and what sharing them saves.

use std::collections::BTreeMap;

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderName};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

use super::Registry;
use super::names::Name;
use super::reply::{Problem, Reply};
use super::storage::Manifest;
use crate::image::Digest;

/// On a narrow screen a row of a table becomes a line that breaks, whose numbers say what they are.
const STYLE: &str = ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;\
background:#fff}h2{margin:2rem 0 .5rem;overflow-wrap:anywhere}table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.2rem 1rem \
.2rem 0;border-bottom:1px solid #ddd}.n{text-align:right;white-space:nowrap}code{font-size:.9em}summary{cursor:pointer}\
@media(max-width:40rem){th{display:none}tr{display:block;padding:.3rem 0;border-bottom:1px solid #ddd}\
td{display:inline-block;border:0;vertical-align:top;overflow-wrap:anywhere}.n::before{content:attr(data-is) ' '}summary::before{content:'layers '}}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}th,td,tr{border-color:#444}}";
/// Nothing of the page comes from elsewhere or runs.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// One tag, as the page shows it.
struct Shown {
    tag: String,
    manifest: Digest,
    kind: &'static str,
    layers: Vec<(Digest, u64)>,
}

impl Registry {
    /// Shows everything that has a tag.
    pub(super) fn page(&self) -> Result<Reply, Problem> {
        let mut repositories = Vec::new();
        for name in self.storage.repositories()? {
            let mut shown = Vec::new();
            for tag in self.storage.tags(&name)? {
                let digest = self.storage.tag(&name, &tag)?;
                let manifest = digest.map(|digest| self.storage.manifest(&name, &digest)).transpose()?.flatten();
                shown.extend(manifest.map(|manifest| self.shown(&name, tag, &manifest)));
            }
            repositories.push((name, shown));
        }
        let text = render(&repositories).into_string();
        let reply = Reply::text(StatusCode::OK, "text/html; charset=utf-8", text).with(CACHE_CONTROL, "no-store");
        Ok(reply.with(HeaderName::from_static("content-security-policy"), POLICY))
    }

    /// The layers of an image, or of all images that an index lists and that are here.
    fn shown(&self, name: &Name, tag: String, manifest: &Manifest) -> Shown {
        let document = serde_json::from_slice::<Value>(&manifest.bytes).unwrap_or_default();
        let mut layers = layers_of(&document);
        let listed = document.get("manifests").and_then(Value::as_array);
        for digest in listed.into_iter().flatten().filter_map(|one| one.get("digest")?.as_str()?.parse::<Digest>().ok())
        {
            if let Ok(Some(image)) = self.storage.manifest(name, &digest) {
                layers.extend(layers_of(&serde_json::from_slice(&image.bytes).unwrap_or_default()));
            }
        }
        let kind = if listed.is_some() { "index" } else { "image" };
        Shown { tag, manifest: manifest.digest, kind, layers }
    }
}

fn layers_of(document: &Value) -> Vec<(Digest, u64)> {
    let layers = document.get("layers").and_then(Value::as_array);
    let layer = |layer: &Value| Some((layer.get("digest")?.as_str()?.parse().ok()?, layer.get("size")?.as_u64()?));
    layers.into_iter().flatten().filter_map(layer).collect()
}

fn render(repositories: &[(Name, Vec<Shown>)]) -> Markup {
    // In how many tags each layer is.
    let mut uses: BTreeMap<&Digest, (usize, u64)> = BTreeMap::new();
    for (digest, size) in repositories.iter().flat_map(|(_, tags)| tags).flat_map(|tag| &tag.layers) {
        let (count, _) = uses.entry(digest).or_insert((0, *size));
        *count += 1;
    }
    let kept: u64 = uses.values().map(|(_, size)| size).sum();
    let all: u64 = uses.values().map(|(count, size)| *count as u64 * size).sum();
    let shared = |digest: &Digest| uses.get(digest).is_some_and(|(count, _)| *count > 1);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { "Registry" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Registry" }
                p {
                    (repositories.len()) " repositories. Their tags' layers are " (size(all)) "; kept once each, "
                    (size(kept)) ": sharing saves " b { (size(all - kept)) } "."
                }
                @for (name, tags) in repositories {
                    h2 { (name) }
                    @if tags.is_empty() { p { "No tags." } } @else { (table(tags, &shared)) }
                }
            }
        }
    }
}

fn table(tags: &[Shown], shared: &impl Fn(&Digest) -> bool) -> Markup {
    let sum = |layers: &mut dyn Iterator<Item = &(Digest, u64)>| layers.map(|(_, size)| size).sum::<u64>();
    html! {
        table {
            tr { th { "Tag" } th { "Digest" } th { "Kind" } th { "Layers" } th.n { "Size" } th.n { "Shared" } }
            @for tag in tags {
                tr {
                    td { (tag.tag) }
                    td { code { (tag.manifest.short()) } }
                    td { (tag.kind) }
                    td {
                        details {
                            summary { (tag.layers.len()) }
                            @for (digest, bytes) in &tag.layers {
                                div { code { (digest.short()) } " " (size(*bytes)) @if shared(digest) { " shared" } }
                            }
                        }
                    }
                    td.n data-is="size" { (size(sum(&mut tag.layers.iter()))) }
                    td.n data-is="shared" { (size(sum(&mut tag.layers.iter().filter(|(digest, _)| shared(digest))))) }
                }
            }
        }
    }
}

/// A size as people read it.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let step = units.iter().enumerate().rev().find(|(power, _)| bytes >= 1 << (10 * power)).unwrap_or((0, &"B"));
    match step {
        (0, unit) => format!("{bytes} {unit}"),
        (power, unit) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << (10 * power)) as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn a_size_is_short() {
        let sizes = [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_500_000, "1.4 MiB"), (3 << 40, "3.0 TiB")];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
    }
}
