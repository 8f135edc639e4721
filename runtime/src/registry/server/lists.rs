//! Requests for lists: tags, referrers, repositories (end-8, end-12), a page at a time.

use std::collections::BTreeSet;

use hyper::StatusCode;
use hyper::header::LINK;
use serde_json::{Value, json};

use super::Registry;
use super::blobs::valid;
use super::manifests::{LARGEST, OCI_INDEX};
use super::names::Name;
use super::reply::{Problem, Reply};
use super::route::{Query, encode};

const JSON: &str = "application/json";

/// Which part of a list is asked for.
struct Page<'a> {
    /// So many at most.
    most: Option<usize>,
    /// Those after this one.
    last: Option<&'a str>,
}

impl<'a> Page<'a> {
    fn asked(query: &'a Query) -> Result<Self, Problem> {
        let most = query.get("n").map(str::parse).transpose();
        let most =
            most.map_err(|_| Problem::bad("UNSUPPORTED", "n is the number of entries that a page has at most"))?;
        Ok(Self { most, last: query.get("last") })
    }

    /// Cuts the page out of the whole. Answers whether more follow.
    fn of(&self, all: BTreeSet<String>) -> (Vec<String>, bool) {
        let mut rest = all.into_iter().filter(|entry| self.last.is_none_or(|last| entry.as_str() > last));
        let page: Vec<String> = rest.by_ref().take(self.most.unwrap_or(usize::MAX)).collect();
        // A page of none has no last entry to go on from.
        let more = !page.is_empty() && rest.next().is_some();
        (page, more)
    }
}

impl Registry {
    /// The tags of a repository.
    pub(super) fn list_tags(&self, name: &Name, query: &Query) -> Result<Reply, Problem> {
        let page = Page::asked(query)?;
        if !self.storage.knows(name) {
            let problem = Problem::missing("NAME_UNKNOWN", "repository name not known to registry");
            return Err(problem.about(json!({ "name": name.as_str() })));
        }
        let (tags, more) = page.of(self.storage.tags(name)?);
        let reply = Reply::json(JSON, &json!({ "name": name.as_str(), "tags": tags }));
        Ok(linked(reply, &format!("/v2/{name}/tags/list"), &page, tags.last().filter(|_| more), ""))
    }

    /// The names of all repositories.
    pub(super) fn list_repositories(&self, query: &Query) -> Result<Reply, Problem> {
        let page = Page::asked(query)?;
        let all = self.storage.repositories()?.iter().map(ToString::to_string).collect();
        let (names, more) = page.of(all);
        let reply = Reply::json(JSON, &json!({ "repositories": names }));
        Ok(linked(reply, "/v2/_catalog", &page, names.last().filter(|_| more), ""))
    }

    /// What refers to a manifest: an index, also of a manifest that is not here, or not yet.
    pub(super) fn list_referrers(&self, name: &Name, digest: &str, query: &Query) -> Result<Reply, Problem> {
        let subject = valid(digest)?;
        let page = Page::asked(query)?;
        let kind = query.get("artifactType");
        let (mut listed, mut size, mut more) = (Vec::new(), 0, false);
        let mut last = None;
        for (digest, text) in self.storage.referrers(name, &subject)? {
            let digest = digest.to_string();
            if page.last.is_some_and(|last| digest.as_str() <= last) {
                continue;
            }
            let Ok(descriptor) = serde_json::from_slice::<Value>(&text) else { continue };
            if kind.is_some_and(|kind| descriptor.get("artifactType").and_then(Value::as_str) != Some(kind)) {
                continue;
            }
            // An index is a manifest too, and clients refuse larger ones.
            if page.most.is_some_and(|most| listed.len() >= most) || size + text.len() > LARGEST - 1024 {
                more = last.is_some();
                break;
            }
            size += text.len() + 1;
            last = Some(digest);
            listed.push(descriptor);
        }
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed });
        let reply = Reply::text(StatusCode::OK, OCI_INDEX, index.to_string());
        let (reply, filter) = match kind {
            Some(kind) => {
                (reply.header("oci-filters-applied", "artifactType"), format!("&artifactType={}", encode(kind)))
            }
            None => (reply, String::new()),
        };
        let path = format!("/v2/{name}/referrers/{subject}");
        Ok(linked(reply, &path, &page, last.as_ref().filter(|_| more), &filter))
    }
}

/// Says where the list goes on (RFC 8288), if it does.
fn linked(reply: Reply, path: &str, page: &Page<'_>, last: Option<&String>, more: &str) -> Reply {
    let Some(last) = last else { return reply };
    let most = page.most.map(|most| format!("n={most}&")).unwrap_or_default();
    reply.with(LINK, format!("<{path}?{most}last={}{more}>; rel=\"next\"", encode(last)))
}
