//! "Push", manifests: what they name has to be there, whatever kind they are.

use isolab_runtime::image::{Algorithm, Digest};
use libtest_mimic::Failed;
use serde_json::{Value, json};

use super::asking::{Spec, manifest_path};
use super::{BYTES, EMPTY, INDEX, MANIFEST};

pub(super) fn pushing_manifests(spec: &mut Spec) -> Result<(), Failed> {
    let content = spec.manifest(json!({ "annotations": { "a": "b" } }))?;
    let digest = Digest::of(&content);
    spec.says("a manifest that was pushed MUST be answered 201 Created, with its Location and its digest");
    for reference in ["v1", &digest.to_string()] {
        let answer = spec.put(201, reference, MANIFEST, &content)?;
        spec.equal("digest", answer.header("docker-content-digest"), &digest.to_string());
        let pulled = spec.get(200, answer.header("location"))?;
        spec.equal("the registry MUST store the manifest exactly", &pulled.body, &content);
    }
    spec.says("a digest of another algorithm stays the manifest's digest");
    let other = Digest::with(Algorithm::Sha512, &content);
    let answer = spec.put(201, &format!("{other}?tag=five&tag=twelve"), MANIFEST, &content)?;
    spec.equal("digest", answer.header("docker-content-digest"), &other.to_string());
    spec.says("end-7b: tags behind the question mark are set, and told");
    spec.equal("OCI-Tag", answer.header("oci-tag"), "five, twelve");
    for reference in ["five", "twelve", &other.to_string()] {
        let answer = spec.look(200, &manifest_path(reference))?;
        spec.equal(reference, answer.header("docker-content-digest"), &other.to_string());
    }
    spec.says("a manifest whose digest is another than it was pushed by is answered 400");
    let answer = spec.put(400, &Digest::of(b"another").to_string(), MANIFEST, &content)?;
    spec.equal("code", answer.code().as_str(), "DIGEST_INVALID");
    spec.put(400, "sha256:ab", MANIFEST, &content)?;
    spec.says("registries SHOULD ignore parameters of Content-Type");
    spec.put(201, "v2", &format!("{MANIFEST}; charset=utf-8"), &content)?;
    let pulled = spec.get(200, &manifest_path("v2"))?;
    spec.equal("type", pulled.header("content-type"), MANIFEST);
    spec.says("the client MAY use conditional requests, so that it undoes nobody's change (RFC 9110, 13.1)");
    let tag = format!("\"{digest}\"");
    for (status, reference, condition) in [
        (412, "v2", ("if-none-match", "*")),
        (201, "v2", ("if-match", tag.as_str())),
        (412, "v2", ("if-match", "\"sha256:ab\"")),
        (412, "v9", ("if-match", "*")),
        (201, "v9", ("if-none-match", "*")),
    ] {
        let request = format!("PUT {}", manifest_path(reference));
        spec.ask(status, &request, &[("content-type", MANIFEST), condition], &content)?;
    }
    spec.says("Content-Type MUST be the mediaType that the manifest says");
    spec.put(400, "v3", INDEX, &content)?;
    spec.says("a reference is a tag or a digest, and nothing else");
    for reference in [".hidden", "-x", "a%20b", &"x".repeat(129)] {
        spec.put(400, reference, MANIFEST, &content)?;
    }
    spec.says("a manifest is JSON");
    for wrong in [&b"no JSON"[..], b"", b"[]", b"{"] {
        let answer = spec.put(400, "v4", MANIFEST, wrong)?;
        spec.equal("code", answer.code().as_str(), "MANIFEST_INVALID");
    }
    spec.says("manifests of 4 MiB are taken; more SHOULD be answered 413 Payload Too Large");
    let bare = spec.manifest(json!({ "annotations": { "a": "" } }))?.len();
    let largest = spec.manifest(json!({ "annotations": { "a": "x".repeat((4 << 20) - bare) } }))?;
    spec.equal("bytes", largest.len(), 4 << 20);
    spec.put(201, "large", MANIFEST, &largest)?;
    let pulled = spec.get(200, &manifest_path("large"))?;
    spec.equal("bytes", pulled.body.len(), 4 << 20);
    let larger = spec.manifest(json!({ "annotations": { "a": "x".repeat(5 << 20) } }))?;
    spec.put(413, "larger", MANIFEST, &larger)?;
    spec.says("MANIFEST_BLOB_UNKNOWN for each blob that the manifest names and nobody has pushed");
    let missing = [Digest::of(b"nowhere"), Digest::of(b"nor there")];
    let layers = missing.map(|one| json!({ "mediaType": BYTES, "digest": one.to_string(), "size": 7 }));
    let holed = spec.manifest(json!({ "layers": layers }))?;
    let answer = spec.put(400, "v5", MANIFEST, &holed)?.json();
    let codes: Vec<&str> =
        answer["errors"].as_array().into_iter().flatten().filter_map(|e| e["code"].as_str()).collect();
    spec.equal("codes", codes, vec!["MANIFEST_BLOB_UNKNOWN"; 2]);
    spec.get(404, &manifest_path("v5")).map(drop)
}

pub(super) fn manifests_of_every_kind(spec: &mut Spec) -> Result<(), Failed> {
    let content = spec.manifest(json!({}))?;
    let digest = Digest::of(&content);
    spec.put(201, &digest.to_string(), MANIFEST, &content)?;
    let listed = json!({ "mediaType": MANIFEST, "digest": digest.to_string(), "size": content.len() });
    let missing = json!({ "mediaType": MANIFEST, "digest": Digest::of(b"nowhere").to_string(), "size": 7 });
    let (docker, list) = (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    );
    let index = |kind: &str, all: &[&Value]| json!({ "schemaVersion": 2, "mediaType": kind, "manifests": all });
    let config = json!({ "mediaType": EMPTY, "digest": Digest::of(b"{}").to_string(), "size": 2 });
    // No blob of this one was pushed, since all of it is in the descriptor.
    let mut inline = json!({ "mediaType": "text/plain", "digest": Digest::of(b"inline").to_string(), "size": 6 });
    inline["data"] = "aW5saW5l".into();
    let foreign = json!({
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar", "size": 7,
        "digest": Digest::of(b"elsewhere").to_string(), "urls": ["https://example.org/layer"],
    });
    spec.says("an index, also a sparse, empty or nested one, an artifact, and what nobody knows yet, are manifests");
    let all = [
        ("index", INDEX, index(INDEX, &[&listed])),
        ("sparse", INDEX, index(INDEX, &[&listed, &missing])),
        ("empty-index", INDEX, index(INDEX, &[])),
        ("docker-list", list, index(list, &[&listed])),
        ("docker", docker, json!({ "schemaVersion": 2, "mediaType": docker, "config": config, "layers": [] })),
        ("no-media-type", MANIFEST, json!({ "schemaVersion": 2, "config": config, "layers": [] })),
        ("no-layers", MANIFEST, json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [] })),
        (
            "artifact",
            MANIFEST,
            json!({ "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example",
                "config": config, "layers": [inline, foreign] }),
        ),
        ("unknown", "application/vnd.example+json", json!({ "mediaType": "application/vnd.example+json", "new": [1] })),
    ];
    for (tag, kind, document) in all {
        // With blanks and an order of its own: the bytes are what counts.
        let content = serde_json::to_vec_pretty(&document)?;
        let answer = spec.put(201, tag, kind, &content)?;
        spec.equal(tag, answer.header("docker-content-digest"), &Digest::of(&content).to_string());
        let pulled = spec.look(200, &manifest_path(tag))?;
        spec.equal(tag, &pulled.body, &content);
        spec.equal(tag, pulled.header("content-type"), kind);
    }
    Ok(())
}
