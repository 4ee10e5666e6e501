//! `[defaults]`: the keys of a route, but for its path.

use toml::Spanned;
use toml::de::DeValue;

use super::RouteSection;
use crate::config::decode::{FromToml, OWN_KEYS, TomlReader};
use crate::config::diagnostics::diagnostic::{DiagnosticBuilder, SourceSpan};

/// `[defaults]`. Its values are decoded with the routes that take them over.
pub struct DefaultsSection {
    /// The values of its keys.
    pub values: Vec<SourceSpan>,
}

impl FromToml for DefaultsSection {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut TomlReader<'_>) -> Option<Self> {
        let table = reader.table(value, "[defaults]")?;
        let known: Vec<&str> =
            RouteSection::KEYS.iter().copied().filter(|key| !OWN_KEYS.contains(key)).collect();
        let mut own = table.clone();
        let is_own = |key: &str| OWN_KEYS.contains(&key);
        for (name, _) in table.iter().filter(|(name, _)| is_own(name.get_ref())) {
            let message = if name.get_ref() == "app" {
                "routes and purge rules name their app themselves"
            } else {
                "a path belongs to one route"
            };
            reader.report.push(
                DiagnosticBuilder::error(name.span(), message)
                    .allowed(known.join(", "))
                    .hint("write it in its [[routes]]"),
            );
        }
        for key in OWN_KEYS {
            own.remove(key);
        }
        reader.unknown_keys(&own, &known, "[defaults]");
        let unknown: Vec<String> = own
            .keys()
            .map(|name| name.get_ref().clone().into_owned())
            .filter(|name| !known.contains(&name.as_str()))
            .collect();
        for name in unknown {
            own.remove(name.as_str());
        }
        let values = own.values().map(Spanned::span).collect();
        // For their errors, which are reported once, also where no route takes them over.
        RouteSection::read(&Spanned::new(value.span(), DeValue::Table(own)), reader)?;
        Some(Self { values })
    }
}
