//! Which images a list shows: docker's filters.

use std::str::FromStr;

use isolab_runtime::build::fits;
use isolab_runtime::image::{Manifest, Named, Reference, Store};

use crate::voice::Failure;

/// What an image has to be, to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Filter {
    /// Without a name, or with one.
    Dangling(bool),
    /// Called so: `*` and `?` stand for what they do in a shell.
    Reference(String),
    /// With this label, and with this value of it.
    Label(String, Option<String>),
    /// Made before this image.
    Before(String),
    /// Made after it.
    Since(String),
}

impl FromStr for Filter {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let wrong = || Failure::Filter { text: text.to_owned() };
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        let value = || value.to_owned();
        Ok(match (name, value().as_str()) {
            ("dangling", "true" | "1") => Self::Dangling(true),
            ("dangling", "false" | "0") => Self::Dangling(false),
            ("reference", _) => Self::Reference(value()),
            ("label", label) => match label.split_once('=') {
                Some((name, value)) => Self::Label(name.to_owned(), Some(value.to_owned())),
                None => Self::Label(value(), None),
            },
            ("before", _) => Self::Before(value()),
            ("since", _) => Self::Since(value()),
            _ => return Err(wrong()),
        })
    }
}

/// The images of a store that pass: by one of the references, and by all else.
pub(super) fn choose(store: &Store, filters: &[Filter], name: Option<&str>) -> Result<Vec<Named>, Failure> {
    let mut chosen = store.names()?;
    if let Some(pattern) = name {
        chosen.retain(|one| is_called(one, pattern));
    }
    let references: Vec<&String> = filters
        .iter()
        .filter_map(|filter| if let Filter::Reference(pattern) = filter { Some(pattern) } else { None })
        .collect();
    if !references.is_empty() {
        chosen.retain(|one| references.iter().any(|pattern| is_called(one, pattern)));
    }
    for filter in filters {
        let passes: Box<dyn Fn(&Named) -> bool> = match filter {
            Filter::Reference(_) => continue,
            Filter::Dangling(without) => Box::new(|one| one.name.is_none() == *without),
            Filter::Label(name, value) => Box::new(|one| has_label(store, one, name, value.as_deref())),
            Filter::Before(image) => {
                let limit = made(store, &store.resolve(image)?);
                Box::new(move |one| made(store, one) < limit)
            }
            Filter::Since(image) => {
                let limit = made(store, &store.resolve(image)?);
                Box::new(move |one| made(store, one) > limit)
            }
        };
        chosen.retain(|one| passes(one));
    }
    Ok(chosen)
}

/// Whether an image is called so, with docker's defaults left away or not. Without a tag every tag will do.
fn is_called(one: &Named, pattern: &str) -> bool {
    let Some(reference) = one.name.as_deref().and_then(|name| name.parse::<Reference>().ok()) else { return false };
    let (familiar, whole) = (reference.familiar(), reference.to_string());
    let bare =
        |text: &str| text.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map(|(name, _)| name.to_owned());
    let forms = [Some(familiar.clone()), Some(whole.clone()), bare(&familiar), bare(&whole)];
    forms.iter().flatten().any(|form| fits(pattern, form.as_ref()))
}

fn has_label(store: &Store, one: &Named, name: &str, value: Option<&str>) -> bool {
    let Ok(manifest) = Manifest::read(store, &one.descriptor) else { return false };
    let labels = manifest.configuration().config().as_ref().and_then(|config| config.labels().clone());
    labels.and_then(|labels| labels.get(name).cloned()).is_some_and(|found| value.is_none_or(|value| found == value))
}

/// When an image was made, as texts that are in order: up to the second, and what is behind the point. One that does
/// not say is the oldest.
fn made(store: &Store, one: &Named) -> (String, String) {
    let created =
        Manifest::read(store, &one.descriptor).ok().and_then(|manifest| manifest.configuration().created().clone());
    let created = created.unwrap_or_default();
    let (second, rest) = created.split_at_checked(19).unwrap_or((&created, ""));
    (second.to_owned(), rest.trim_matches(['.', 'Z']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::Filter;

    #[test]
    fn filters_are_dockers() {
        let label = Filter::Label("a".to_owned(), Some("b=c".to_owned()));
        assert_eq!("label=a=b=c".parse::<Filter>().unwrap(), label);
        assert_eq!("label=a".parse::<Filter>().unwrap(), Filter::Label("a".to_owned(), None));
        assert_eq!("dangling=true".parse::<Filter>().unwrap(), Filter::Dangling(true));
        for text in ["", "dangling", "dangling=perhaps", "size=3"] {
            assert!(text.parse::<Filter>().is_err(), "{text}");
        }
    }
}
