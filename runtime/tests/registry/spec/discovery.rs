//! "Content Discovery": the tags of a repository, and what refers to a manifest.

use isolab_runtime::image::{Algorithm, Digest};
use libtest_mimic::Failed;
use serde_json::{Value, json};

use super::asking::{Answer, Spec, linked, manifest_path};
use super::{EMPTY, INDEX, MANIFEST, REPOSITORY};

pub(super) fn subjects_and_referrers(spec: &mut Spec) -> Result<(), Failed> {
    let content = spec.manifest(json!({}))?;
    for algorithm in Algorithm::ALL {
        let subject = Digest::with(algorithm, &content);
        let path = format!("/v2/{REPOSITORY}/referrers/{subject}");
        spec.says("if there is no referrer, the registry MUST answer 200 with an index of an empty list");
        let answer = spec.look(200, &path)?;
        let empty = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] });
        spec.equal("index", answer.json(), empty);
        spec.equal("type", answer.header("content-type"), INDEX);
        spec.says("a manifest whose subject is not there yet MUST be taken, and answered with OCI-Subject");
        let about = json!({ "mediaType": MANIFEST, "digest": subject.to_string(), "size": content.len() });
        let (sbom, signature) = ("application/vnd.example.sbom", "application/vnd.example.signature+json");
        let notes = json!({ "org.example": "a note" });
        let all = [
            (MANIFEST, spec.manifest(json!({ "subject": about, "artifactType": sbom, "annotations": notes }))?, sbom),
            (MANIFEST, spec.manifest(json!({ "subject": about, "artifactType": signature }))?, signature),
            (MANIFEST, spec.manifest(json!({ "subject": about, "annotations": { "no": "type" } }))?, EMPTY),
            (MANIFEST, spec.manifest(json!({ "subject": about, "artifactType": "" }))?, EMPTY),
            (
                INDEX,
                json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [], "subject": about }).to_string().into(),
                "",
            ),
        ];
        for (kind, content, _) in &all {
            let answer = spec.put(201, &Digest::of(content).to_string(), kind, content)?;
            spec.equal("OCI-Subject", answer.header("oci-subject"), &subject.to_string());
        }
        spec.says(
            "each descriptor MUST have size, digest, artifactType (or the configuration's, or none) and annotations",
        );
        let listed = spec.look(200, &path)?.json();
        let listed: Vec<&Value> = listed["manifests"].as_array().into_iter().flatten().collect();
        spec.equal("referrers", listed.len(), all.len());
        for (kind, content, artifact) in &all {
            let digest = Digest::of(content).to_string();
            let one = listed.iter().find(|one| one["digest"] == digest.as_str());
            let one = one.copied().cloned().unwrap_or_default();
            spec.equal("mediaType", one["mediaType"].as_str(), Some(*kind));
            spec.equal("size", one["size"].as_u64(), Some(content.len() as u64));
            spec.equal("artifactType", one["artifactType"].as_str().unwrap_or_default(), artifact);
            let own: Value = serde_json::from_slice(content)?;
            spec.equal("annotations", &one["annotations"], &own["annotations"]);
        }
        spec.says("a filter MUST be told by OCI-Filters-Applied: artifactType");
        for (kind, count) in [(sbom, 1), (signature, 1), (EMPTY, 2), ("application/none", 0)] {
            let answer = spec.get(200, &format!("{path}?artifactType={}", kind.replace('+', "%2B")))?;
            spec.equal("OCI-Filters-Applied", answer.header("oci-filters-applied"), "artifactType");
            spec.equal(kind, answer.json()["manifests"].as_array().map(Vec::len), Some(count));
        }
        spec.says("what is not all in one answer MUST be linked to (RFC 8288, rel=next)");
        let (mut next, mut found) = (format!("{path}?n=2"), 0);
        while !next.is_empty() {
            let answer = spec.get(200, &next)?;
            found += answer.json()["manifests"].as_array().map_or(0, Vec::len);
            next = linked(&answer);
        }
        spec.equal("referrers on all pages", found, all.len());
        spec.says("a referrer that was deleted is listed no more; its subject need not be there for that");
        spec.ask(202, &format!("DELETE {}", manifest_path(Digest::of(&all[0].1))), &[], b"")?;
        let left = spec.get(200, &path)?.json();
        spec.equal("referrers", left["manifests"].as_array().map(Vec::len), Some(all.len() - 1));
        spec.says("a subject that is deleted keeps those that refer to it");
        spec.put(201, &subject.to_string(), MANIFEST, &content)?;
        spec.ask(202, &format!("DELETE {}", manifest_path(subject)), &[], b"")?;
        let left = spec.get(200, &path)?.json();
        spec.equal("referrers", left["manifests"].as_array().map(Vec::len), Some(all.len() - 1));
    }
    spec.says("a manifest without a subject is answered without OCI-Subject");
    let answer = spec.put(201, "plain", MANIFEST, &content)?;
    spec.equal("OCI-Subject", answer.header("oci-subject"), "");
    spec.says("the registry MUST NOT answer 404 to a request for referrers; an invalid digest MUST be answered 400");
    spec.get(200, &format!("/v2/nowhere/referrers/{}", Digest::of(b"nothing")))?;
    spec.get(400, &format!("/v2/{REPOSITORY}/referrers/sha256:ab"))?;
    spec.get(400, &format!("/v2/{REPOSITORY}/referrers/latest"))?;
    let wrong = spec.manifest(json!({ "subject": { "mediaType": MANIFEST, "digest": "sha256:ab", "size": 1 } }))?;
    spec.put(400, "wrong", MANIFEST, &wrong).map(drop)
}

pub(super) fn listing_tags(spec: &mut Spec) -> Result<(), Failed> {
    let content = spec.manifest(json!({}))?;
    let path = format!("/v2/{REPOSITORY}/tags/list");
    let tags = |answer: &Answer| -> Vec<String> {
        let tags = answer.json()["tags"].as_array().cloned().unwrap_or_default();
        tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect()
    };
    spec.says("if the repository exists, the answer MUST be 200 OK; the list MAY be empty");
    let answer = spec.look(200, &path)?;
    spec.equal("list", answer.json(), json!({ "name": REPOSITORY, "tags": [] }));
    // Pushed in no order, with capitals and what sorts around them.
    for tag in ["latest", "Zeta", "1.10", "_a", "1.2", "alpha"] {
        spec.put(201, tag, MANIFEST, &content)?;
    }
    let all = ["1.10", "1.2", "Zeta", "_a", "alpha", "latest"];
    spec.says("the tags MUST be in lexical order");
    let answer = spec.look(200, &path)?;
    spec.equal("tags", tags(&answer), all.map(str::to_owned).to_vec());
    spec.equal("Link", answer.header("link"), "");
    spec.says("n limits the tags, last is the tag that they come after, and is not among them");
    for (query, wanted) in [
        ("?n=2", &all[..2]),
        ("?n=4&last=1.2", &all[2..]),
        ("?n=100", &all[..]),
        ("?last=alpha", &all[5..]),
        ("?last=b&n=9", &all[5..]),
        ("?n=2&last=latest", &[]),
    ] {
        let answer = spec.look(200, &format!("{path}{query}"))?;
        spec.equal(query, tags(&answer), wanted.iter().map(|&tag| tag.to_owned()).collect());
    }
    spec.says("n=0: an empty list, without Link");
    let answer = spec.get(200, &format!("{path}?n=0"))?;
    spec.equal("tags", (tags(&answer).len(), answer.header("link")), (0, ""));
    spec.says("Link leads through all of them, and ends");
    let (mut next, mut found, mut pages) = (format!("{path}?n=4"), Vec::new(), 0);
    while !next.is_empty() {
        let answer = spec.get(200, &next)?;
        found.extend(tags(&answer));
        pages += 1;
        next = linked(&answer);
    }
    spec.equal("all", (found, pages), (all.map(str::to_owned).to_vec(), 2));
    spec.says("what is no number is answered 400, and a repository that is not there 404");
    spec.get(400, &format!("{path}?n=many"))?;
    spec.get(400, &format!("{path}?n=-1"))?;
    let answer = spec.get(404, "/v2/nowhere/tags/list")?;
    spec.equal("code", answer.code().as_str(), "NAME_UNKNOWN");
    Ok(())
}
