//! What holds of every answer: the version, the methods of an address, the form of an error.

use isolab_runtime::image::Digest;
use libtest_mimic::Failed;

use super::asking::Spec;

/// All codes that an error may have.
const CODES: [&str; 14] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
];

pub(super) fn support(spec: &mut Spec) -> Result<(), Failed> {
    spec.says("end-1: GET /v2/ is answered 200 OK by a registry that implements this specification");
    let answer = spec.look(200, "/v2/")?;
    spec.equal("the header", answer.header("docker-distribution-api-version"), "registry/2.0");
    spec.get(200, "/v2")?;
    spec.says("what is no address of a registry is answered 404");
    spec.get(404, "/v1/")?;
    spec.get(404, "/v2/a/things/b")?;
    spec.says("a method that an address does not have is answered 405, with those that it has");
    for (request, allowed) in [
        ("DELETE /v2/", "GET, HEAD"),
        ("PUT /v2/a/tags/list", "GET, HEAD"),
        ("POST /v2/a/manifests/x", "GET, HEAD, PUT, DELETE"),
        ("GET /v2/a/blobs/uploads/", "POST"),
    ] {
        let answer = spec.ask(405, request, &[], b"")?;
        spec.equal("Allow", answer.header("allow"), allowed);
    }
    Ok(())
}

pub(super) fn errors(spec: &mut Spec) -> Result<(), Failed> {
    spec.says("the code of an error MUST be one of the specification's, and the body of its form");
    let nothing = Digest::of(b"nothing");
    let long = format!("/v2/{}/tags/list", "a".repeat(256));
    let requests = [
        (404, format!("GET /v2/a/blobs/{nothing}"), "BLOB_UNKNOWN"),
        (404, "GET /v2/a/blobs/uploads/none".to_owned(), "BLOB_UPLOAD_UNKNOWN"),
        (404, "GET /v2/a/manifests/none".to_owned(), "MANIFEST_UNKNOWN"),
        (404, "GET /v2/a/tags/list".to_owned(), "NAME_UNKNOWN"),
        (400, "GET /v2/A/tags/list".to_owned(), "NAME_INVALID"),
        (400, "GET /v2/a../tags/list".to_owned(), "NAME_INVALID"),
        (400, format!("GET {long}"), "NAME_INVALID"),
        (400, "GET /v2/a/referrers/x".to_owned(), "DIGEST_INVALID"),
        (400, "PUT /v2/a/manifests/-x".to_owned(), "MANIFEST_INVALID"),
        (400, "PUT /v2/a/manifests/x".to_owned(), "MANIFEST_INVALID"),
        (400, "POST /v2/a/blobs/uploads/?digest=x".to_owned(), "DIGEST_INVALID"),
        (405, "DELETE /v2/".to_owned(), "UNSUPPORTED"),
        (404, "GET /nowhere".to_owned(), "UNSUPPORTED"),
    ];
    for (status, request, code) in requests {
        let answer = spec.ask(status, &request, &[], b"")?;
        spec.equal(&request, answer.code().as_str(), code);
        spec.equal(&request, answer.header("content-type"), "application/json");
        let body = answer.json();
        for error in body["errors"].as_array().into_iter().flatten() {
            spec.holds(&request, error["code"].as_str().is_some_and(|code| CODES.contains(&code)));
            spec.holds(&request, error["message"].is_string());
        }
    }
    Ok(())
}
