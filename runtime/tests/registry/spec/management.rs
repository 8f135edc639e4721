//! "Content Management": what may be deleted, and what stays.

use isolab_runtime::image::Digest;
use libtest_mimic::Failed;
use serde_json::json;

use super::asking::{Spec, blob_path, manifest_path};
use super::{MANIFEST, REPOSITORY};

pub(super) fn deleting(spec: &mut Spec) -> Result<(), Failed> {
    let content = spec.manifest(json!({}))?;
    let digest = Digest::of(&content);
    for tag in ["one", "two", "three"] {
        spec.put(201, tag, MANIFEST, &content)?;
    }
    spec.says("deleting a tag MUST be answered 202; a GET of it 404; other tags and the manifest stay");
    spec.ask(202, &format!("DELETE {}", manifest_path("one")), &[], b"")?;
    spec.look(404, &manifest_path("one"))?;
    spec.get(200, &manifest_path("two"))?;
    spec.get(200, &manifest_path(digest))?;
    spec.says("deleting a manifest MUST be answered 202; a GET of it, or of any tag of it, 404");
    spec.ask(202, &format!("DELETE {}", manifest_path(digest)), &[], b"")?;
    for reference in ["two", "three", &digest.to_string()] {
        spec.look(404, &manifest_path(reference))?;
        let answer = spec.ask(404, &format!("DELETE {}", manifest_path(reference)), &[], b"")?;
        spec.equal("code", answer.code().as_str(), "MANIFEST_UNKNOWN");
    }
    let answer = spec.get(200, &format!("/v2/{REPOSITORY}/tags/list"))?.json();
    spec.equal("tags", &answer["tags"], &json!([]));
    spec.says("what was deleted may be pushed again");
    spec.put(201, "one", MANIFEST, &content)?;
    spec.says("deleting a blob MUST be answered 202; a GET of it 404; other repositories keep it");
    let layer = Digest::of(b"a layer");
    spec.ask(201, &format!("POST /v2/other/blobs/uploads/?mount={layer}&from={REPOSITORY}"), &[], b"")?;
    spec.ask(202, &format!("DELETE {}", blob_path(&layer)), &[], b"")?;
    spec.look(404, &blob_path(&layer))?;
    spec.get(200, &format!("/v2/other/blobs/{layer}"))?;
    spec.says("a blob, manifest or repository that is not there MUST be answered 404");
    spec.ask(404, &format!("DELETE {}", blob_path(&layer)), &[], b"")?;
    spec.ask(404, &format!("DELETE /v2/{REPOSITORY}/blobs/sha256:ab"), &[], b"")?;
    spec.ask(404, &format!("DELETE /v2/nowhere/manifests/{digest}"), &[], b"")?;
    spec.ask(404, "DELETE /v2/nowhere/manifests/one", &[], b"")?;
    spec.ask(404, &format!("DELETE /v2/nowhere/blobs/{layer}"), &[], b"").map(drop)
}
