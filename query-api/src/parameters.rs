//! Query parameters, checked against what the endpoint declares.

use std::str::FromStr;

use axum::{
    extract::{FromRequestParts, OriginalUri, Path, rejection::PathRejection},
    http::request::Parts,
};

use crate::problem::Problem;

/// A query parameter that an endpoint declares.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    pub name: &'static str,
    pub meaning: &'static str,
    /// Its JSON type.
    pub kind: &'static str,
    /// Whether it may be repeated, for OR.
    pub repeats: bool,
}

/// The parameters of a request's endpoint, as its extension.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeclaredParameters(pub(crate) &'static [Parameter]);

/// The parameters of a request: only such as its endpoint knows.
#[derive(Clone, Debug, Default)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// The parameters of a query that are declared; others are left out.
    pub(crate) fn known(declared: &[Parameter], query: &str) -> Self {
        let pairs = url::form_urlencoded::parse(query.as_bytes()).into_owned();
        Self(pairs.filter(|(name, _)| declared.iter().any(|parameter| is_of(parameter, name))).collect())
    }

    /// The pairs as parameters.
    ///
    /// # Errors
    /// When one of them is not declared.
    pub(crate) fn checked(declared: &[Parameter], pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        match pairs.iter().find(|(name, _)| !declared.iter().any(|parameter| is_of(parameter, name))) {
            None => Ok(Self(pairs)),
            Some((name, _)) => {
                let names: Vec<_> = declared.iter().map(|parameter| parameter.name).collect();
                let detail = format!("there is no parameter {name:?} here; there are {}", names.join(", "));
                Err(Problem::parameter(name, detail))
            }
        }
    }

    /// Without the parameters of these names.
    pub(crate) fn without(mut self, names: &[&str]) -> Self {
        self.0.retain(|(name, _)| !names.contains(&name.as_str()));
        self
    }

    /// The only value of a parameter; empty is absent.
    ///
    /// # Errors
    /// When it is given twice.
    pub fn text<'a>(&'a self, name: &'a str) -> Result<Option<&'a str>, Problem> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(Problem::parameter(name, format!("{name} is given more than once"))),
        }
    }

    /// Every value of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter, also empty ones.
    pub fn every<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Every name with its value.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = &(String, String)> {
        self.0.iter()
    }

    /// How many are asked for: `limit`, up to a number.
    ///
    /// # Errors
    /// When it is none, or too many.
    pub(crate) fn limit(&self, usual: usize, most: usize) -> Result<usize, Problem> {
        let limit = self.parsed("limit", "a number")?.unwrap_or(usual);
        if (1..=most).contains(&limit) {
            Ok(limit)
        } else {
            Err(Problem::parameter("limit", format!("limit is 1 to {most}, not {limit}")))
        }
    }

    /// Whether the parameter is there, even empty.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// A parameter of some type; `expects` says what it should be.
    ///
    /// # Errors
    /// When it is not of that type.
    pub fn parsed<T: FromStr>(&self, name: &str, expects: &str) -> Result<Option<T>, Problem> {
        let wrong = |text: &str| Problem::parameter(name, format!("{name} is {expects}, not {text:?}"));
        self.text(name)?.map(|text| text.parse().map_err(|_| wrong(text))).transpose()
    }
}

/// The id, or the name, in an address.
pub(crate) type Id = Result<Path<String>, PathRejection>;

pub(crate) fn id_of(id: Id) -> Result<String, Problem> {
    id.map(|Path(id)| id).map_err(|_| Problem::not_found("What is named in the address is text in UTF-8."))
}

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let OriginalUri(uri) =
            OriginalUri::from_request_parts(parts, state).await.unwrap_or_else(|never| match never {});
        let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let declared = parts.extensions.get::<DeclaredParameters>().map_or(&[][..], |declared| declared.0);
        Self::checked(declared, pairs)
    }
}

/// Whether a name is a parameter's, or one of the many that `filter.*` stands for.
fn is_of(parameter: &Parameter, name: &str) -> bool {
    parameter.name == name || parameter.name.strip_suffix('*').is_some_and(|start| name.starts_with(start))
}
