//! The catalogue: every context, event and field, as data.
//!
//! A context is one TOML file. Its `[fields]` table defines each payload name once, so a name has one type and
//! one meaning in a context and one column in its table; its `[events.Name]` tables say which of them an event
//! carries. [`Catalogue::embedded`] reads the files compiled into the program; [`Catalogue::parse`] adds a user's own.

pub(crate) mod definition;
mod file;

use std::{collections::HashMap, sync::Arc};

pub use self::{
    definition::{Column, Context, Delivery, EventDefinition, EventField},
    file::{CatalogueError, Problem},
};

/// The files compiled into the program: the marketplace in the order of its process, then the other systems.
pub const EMBEDDED: [(&str, &str); 19] = [
    ("acquisition.toml", include_str!("../catalogue/acquisition.toml")),
    ("production.toml", include_str!("../catalogue/production.toml")),
    ("inventory.toml", include_str!("../catalogue/inventory.toml")),
    ("browsing.toml", include_str!("../catalogue/browsing.toml")),
    ("purchase.toml", include_str!("../catalogue/purchase.toml")),
    ("delivery.toml", include_str!("../catalogue/delivery.toml")),
    ("trial.toml", include_str!("../catalogue/trial.toml")),
    ("trade_in.toml", include_str!("../catalogue/trade_in.toml")),
    ("financing.toml", include_str!("../catalogue/financing.toml")),
    ("accounts.toml", include_str!("../catalogue/accounts.toml")),
    ("warranty.toml", include_str!("../catalogue/warranty.toml")),
    ("support.toml", include_str!("../catalogue/support.toml")),
    ("marketing.toml", include_str!("../catalogue/marketing.toml")),
    ("analytics.toml", include_str!("../catalogue/analytics.toml")),
    ("alerts.toml", include_str!("../catalogue/alerts.toml")),
    ("shop.toml", include_str!("../catalogue/shop.toml")),
    ("dealers.toml", include_str!("../catalogue/dealers.toml")),
    ("courses.toml", include_str!("../catalogue/courses.toml")),
    ("loyalty.toml", include_str!("../catalogue/loyalty.toml")),
];

/// A context's place in the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContextIndex(usize);

impl ContextIndex {
    pub const FIRST: Self = Self(0);

    #[must_use]
    pub const fn get(self) -> usize {
        self.0
    }
}

/// An event's place in the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventIndex {
    pub context: ContextIndex,
    event: usize,
}

/// Every context.
#[derive(Clone, Debug)]
pub struct Catalogue {
    contexts: Vec<Context>,
    by_name: HashMap<String, Vec<EventIndex>>,
}

impl Catalogue {
    /// The catalogue compiled into the program.
    ///
    /// # Errors
    /// When an embedded file is not valid; a test keeps this from happening.
    pub fn embedded() -> Result<Arc<Self>, CatalogueError> {
        Self::parse(EMBEDDED).map(Arc::new)
    }

    /// A catalogue of `(file name, text)` pairs.
    ///
    /// # Errors
    /// With the file and what is wrong in it.
    pub fn parse<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, CatalogueError> {
        let mut catalogue = Self { contexts: Vec::new(), by_name: HashMap::new() };
        for (file, text) in files {
            let context = file::parse(file, text)?;
            if catalogue.context(&context.name).is_some() {
                return Err(CatalogueError::Repeated { context: context.name, file: file.to_owned() });
            }
            let index = ContextIndex(catalogue.contexts.len());
            for (event, definition) in context.events.iter().enumerate() {
                let place = EventIndex { context: index, event };
                let qualified = format!("{}.{}", context.name, definition.name);
                catalogue.by_name.entry(definition.name.clone()).or_default().push(place);
                catalogue.by_name.entry(qualified).or_default().push(place);
                for alias in &definition.aliases {
                    catalogue.by_name.entry(alias.clone()).or_default().push(place);
                    let qualified = format!("{}.{alias}", context.name);
                    catalogue.by_name.entry(qualified).or_default().push(place);
                }
            }
            catalogue.contexts.push(context);
            catalogue.check_aliases(file, index)?;
        }
        Ok(catalogue)
    }

    /// An alias names one event, whatever else is in the catalogue.
    fn check_aliases(&self, file: &str, context: ContextIndex) -> Result<(), CatalogueError> {
        let last = self.context_at(context);
        let mut names = self.events().flat_map(|(_, event)| event.aliases.iter());
        match names.find(|alias| self.candidates(alias).len() > 1) {
            None => Ok(()),
            Some(alias) => {
                let owner = last.events.iter().find(|event| event.aliases.contains(alias));
                let event = owner.map_or_else(|| last.name.clone(), |event| event.name.clone());
                Err(CatalogueError::Alias { file: file.to_owned(), event, alias: alias.clone() })
            }
        }
    }

    #[must_use]
    pub fn contexts(&self) -> &[Context] {
        &self.contexts
    }

    /// Each context with its index.
    pub fn indexed(&self) -> impl Iterator<Item = (ContextIndex, &Context)> {
        self.contexts.iter().enumerate().map(|(i, context)| (ContextIndex(i), context))
    }

    #[must_use]
    pub fn context(&self, name: &str) -> Option<(ContextIndex, &Context)> {
        self.indexed().find(|(_, context)| context.name == name)
    }

    /// Every event with its context.
    pub fn events(&self) -> impl Iterator<Item = (&Context, &EventDefinition)> {
        self.contexts.iter().flat_map(|context| context.events.iter().map(move |event| (context, event)))
    }

    /// The context at an index this catalogue gave out.
    #[must_use]
    pub fn context_at(&self, index: ContextIndex) -> &Context {
        &self.contexts[index.0]
    }

    /// The event at an index this catalogue gave out.
    #[must_use]
    pub fn event_at(&self, index: EventIndex) -> &EventDefinition {
        &self.contexts[index.context.0].events[index.event]
    }

    /// `context.Name` of the event at an index this catalogue gave out.
    #[must_use]
    pub fn qualified_name(&self, index: EventIndex) -> String {
        format!("{}.{}", self.context_at(index.context).name, self.event_at(index).name)
    }

    /// Every event that a bare name, a `context.Name` or an alias may mean.
    #[must_use]
    pub fn candidates(&self, name: &str) -> &[EventIndex] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests;
