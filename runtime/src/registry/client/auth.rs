//! Proving who asks: Basic, or a Bearer token from the server that the registry names (distribution's token protocol).

use std::collections::HashMap;
use std::io::Read;
use std::sync::PoisonError;

use serde_json::Value;
use ureq::Body;
use ureq::http::Response;

use super::{Client, ClientError, Credentials};

/// A token is some kilobytes.
const LARGEST_ANSWER: u64 = 1 << 20;

/// Who asks for tokens.
const CLIENT: &str = "isolab-ctr";

/// What is known of how to get in.
#[derive(Debug, Default)]
pub(super) struct Authority {
    challenge: Option<Challenge>,
    /// Tokens, by what they are good for.
    tokens: HashMap<String, String>,
    /// Whether to ask for a token that stands for the password from now on.
    pub(super) wants_identity: bool,
    /// That token, where one was given.
    pub(super) identity: Option<String>,
}

/// What a registry says about how to get in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: String, scope: String },
}

impl Client {
    /// What to send along with a request, as far as is known: nothing, before the registry has asked.
    pub(super) fn authorization(&self, scope: &str) -> Option<String> {
        let authority = self.authority.lock().unwrap_or_else(PoisonError::into_inner);
        match &authority.challenge {
            None => None,
            Some(Challenge::Basic) => self.credentials.as_ref().map(super::Credentials::header),
            Some(Challenge::Bearer { .. }) => authority.tokens.get(scope).map(|token| format!("Bearer {token}")),
        }
    }

    /// Does what a registry asks for that has answered 401.
    pub(super) fn authorize(&self, headers: &[String], scope: &str) -> Result<(), ClientError> {
        let refused = || ClientError::Unauthorized { host: self.registry.clone(), known: self.credentials.is_some() };
        let challenge = headers.iter().find_map(|header| Challenge::parse(header)).ok_or_else(refused)?;
        let token = match &challenge {
            Challenge::Basic if self.credentials.as_ref().is_none_or(|one| one.as_identity().is_some()) => {
                return Err(refused());
            }
            Challenge::Basic => None,
            Challenge::Bearer { realm, service, scope: said } => {
                let wanted = if scope.is_empty() { said } else { scope };
                Some(self.token(realm, service, wanted)?)
            }
        };
        let mut authority = self.authority.lock().unwrap_or_else(PoisonError::into_inner);
        authority.challenge = Some(challenge);
        authority.tokens.extend(token.map(|token| (scope.to_owned(), token)));
        Ok(())
    }

    /// Gets a token. The password goes to the server that the registry names; but never without TLS, unless that is how
    /// the registry itself is spoken to.
    fn token(&self, realm: &str, service: &str, scope: &str) -> Result<String, ClientError> {
        let secure = realm.starts_with("https://");
        if !secure && (self.base.starts_with("https://") || !realm.starts_with("http://")) {
            return Err(self.nonsense(format!("it wants the password sent to {realm}")));
        }
        let failed = |source| ClientError::Reach { host: realm.to_owned(), source: Box::new(source) };
        let response = match self.credentials.as_ref().and_then(Credentials::as_identity) {
            Some(token) => self.exchange_identity(realm, service, scope, token),
            None => self.ask_for_token(realm, service, scope),
        };
        let response = response.map_err(failed)?;
        match response.status().as_u16() {
            200 => {}
            400 | 401 | 403 => {
                let known = self.credentials.is_some();
                return Err(ClientError::Unauthorized { host: self.registry.clone(), known });
            }
            status => {
                let (host, request) = (realm.to_owned(), "the request for a token".to_owned());
                return Err(ClientError::Refused { host, status, request, said: String::new() });
            }
        }
        let mut text = Vec::new();
        let read = response.into_body().into_reader().take(LARGEST_ANSWER).read_to_end(&mut text);
        read.map_err(|error| failed(error.into()))?;
        let answer: Value = serde_json::from_slice(&text).unwrap_or_default();
        if let Some(identity) = answer.get("refresh_token").and_then(Value::as_str) {
            let mut authority = self.authority.lock().unwrap_or_else(PoisonError::into_inner);
            authority.identity = Some(identity.to_owned());
        }
        let token = ["token", "access_token"].iter().find_map(|field| answer.get(field)?.as_str());
        token.map(str::to_owned).ok_or_else(|| self.nonsense("the answer to the request for a token holds none"))
    }

    /// Asks by user and password, or as nobody.
    fn ask_for_token(&self, realm: &str, service: &str, scope: &str) -> Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.get(realm).query("service", service);
        for one in scope.split(' ').filter(|one| !one.is_empty()) {
            request = request.query("scope", one);
        }
        if self.authority.lock().unwrap_or_else(PoisonError::into_inner).wants_identity {
            request = request.query("offline_token", "true").query("client_id", CLIENT);
        }
        if let Some(credentials) = &self.credentials {
            request = request.header("authorization", credentials.header());
        }
        request.call()
    }

    /// Asks by the token that a log-in was answered with: OAuth 2's refresh token (RFC 6749, 6), as distribution's
    /// protocol has it.
    fn exchange_identity(
        &self,
        realm: &str,
        service: &str,
        scope: &str,
        identity: &str,
    ) -> Result<Response<Body>, ureq::Error> {
        let fields = [
            ("grant_type", "refresh_token"),
            ("service", service),
            ("client_id", CLIENT),
            ("scope", scope),
            ("refresh_token", identity),
        ];
        self.agent.post(realm).send_form(fields)
    }
}

impl Challenge {
    /// Understands `WWW-Authenticate` (RFC 9110, 11.6.1) as registries write it.
    fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let fields = parameters(rest);
        let field = |name: &str| fields.get(name).cloned();
        let (service, scope) = (field("service").unwrap_or_default(), field("scope").unwrap_or_default());
        Some(Self::Bearer { realm: field("realm")?, service, scope })
    }
}

/// `name="value", name=value`; a comma in quotes is part of the value.
fn parameters(text: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        let name = name.trim_start_matches([',', ' ']).trim().to_ascii_lowercase();
        found.insert(name, value.trim().to_owned());
        rest = after;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::Challenge;

    #[test]
    fn a_challenge_is_understood() {
        let header = r#"Bearer realm="https://auth.example.org/token",service="r, s",scope="repository:a:pull,push""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.example.org/token".to_owned(),
            service: "r, s".to_owned(),
            scope: "repository:a:pull,push".to_owned(),
        };
        assert_eq!(Challenge::parse(header), Some(expected));
        assert_eq!(Challenge::parse("basic realm=x"), Some(Challenge::Basic));
        for header in ["", "Bearer", "Bearer service=\"x\"", "Digest realm=\"x\"", "Bearer realm"] {
            assert_eq!(Challenge::parse(header), None, "{header}");
        }
    }
}
