//! The app's database: campaigns and forms of each tenant, with the same seed at every start, and
//! the reference data that all tenants share.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

/// The most rows in a collection. Further rows are refused.
const MAX_ROWS: usize = 10_000;
/// The most tenants. Further tenants share one that keeps its seed data.
const MAX_TENANTS: usize = 1_000;

/// A collection of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collection {
    /// What is advertised.
    Campaigns,
    /// What visitors fill in.
    Forms,
}

impl Collection {
    /// The collection of this name in a path.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Campaigns, Self::Forms].into_iter().find(|kind| kind.as_str() == name)
    }

    /// Its name in paths.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Campaigns => "campaigns",
            Self::Forms => "forms",
        }
    }
}

/// All tenants' data.
#[derive(Default)]
pub struct Data {
    tenants: HashMap<String, Tenant>,
}

struct Tenant {
    campaigns: CollectionRows,
    forms: CollectionRows,
}

impl Data {
    /// One collection of a tenant, to read.
    pub fn rows(&mut self, tenant: &str, kind: Collection) -> &CollectionRows {
        self.rows_mut(tenant, kind)
    }

    /// One collection of a tenant, to change.
    pub fn rows_mut(&mut self, tenant: &str, kind: Collection) -> &mut CollectionRows {
        let tenant = self.tenant(tenant);
        match kind {
            Collection::Campaigns => &mut tenant.campaigns,
            Collection::Forms => &mut tenant.forms,
        }
    }

    /// The start page of a tenant as this user sees it.
    pub fn dashboard(&mut self, tenant: &str, user: &str) -> Value {
        let rows = self.tenant(tenant);
        let live =
            rows.campaigns.values().filter(|row| row.get("status") == Some(&json!("live"))).count();
        let budget: i64 =
            rows.campaigns.values().filter_map(|row| row.get("budget")?.as_i64()).sum();
        json!({
            "tenant": tenant,
            "greeting": format!("Hello {user}"),
            "campaigns": { "total": rows.campaigns.len(), "live": live, "budget": budget },
            "forms": { "total": rows.forms.len() },
        })
    }

    fn tenant(&mut self, name: &str) -> &mut Tenant {
        let name = if self.tenants.len() < MAX_TENANTS || self.tenants.contains_key(name) {
            name
        } else {
            "too-many-tenants"
        };
        self.tenants.entry(name.to_owned()).or_insert_with(|| Tenant {
            campaigns: CollectionRows::seeded(45, |id| {
                json!({
                    "name": format!("{name} campaign {id}"),
                    "status": if id % 3 == 0 { "paused" } else { "live" },
                    "budget": id * 100,
                })
            }),
            forms: CollectionRows::seeded(12, |id| {
                json!({
                    "title": format!("{name} form {id}"),
                    "fields": ["name", "email"],
                    "campaign": id,
                })
            }),
        })
    }
}

/// A collection: rows by id.
pub struct CollectionRows {
    rows: BTreeMap<u64, Map<String, Value>>,
    next: u64,
}

impl CollectionRows {
    fn seeded(count: u64, row: impl Fn(u64) -> Value) -> Self {
        let mut rows = Self { rows: BTreeMap::new(), next: count + 1 };
        for id in 1..=count {
            if let Value::Object(fields) = row(id) {
                rows.put(id, fields, 1, "seed");
            }
        }
        rows
    }

    fn values(&self) -> impl Iterator<Item = &Map<String, Value>> {
        self.rows.values()
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    /// One row.
    pub fn one(&self, id: u64) -> Option<Value> {
        self.rows.get(&id).cloned().map(Value::Object)
    }

    /// `limit` rows from page `page` (from 1), and how many there are in all.
    pub fn page(&self, page: usize, limit: usize) -> Value {
        let items: Vec<_> =
            self.values().skip((page - 1).saturating_mul(limit)).take(limit).collect();
        json!({ "items": items, "page": page, "limit": limit, "total": self.len() })
    }

    /// Adds a row, unless there are too many.
    pub fn create(&mut self, fields: Map<String, Value>, user: &str) -> Option<(u64, Value)> {
        if self.rows.len() >= MAX_ROWS {
            return None;
        }
        let id = self.next;
        self.next += 1;
        Some((id, self.put(id, fields, 1, user)))
    }

    /// Replaces the fields of a row.
    pub fn replace(
        &mut self,
        id: u64,
        fields: Map<String, Value>,
        user: &str,
    ) -> Option<(u64, Value)> {
        let version = self.version(id)?;
        Some((id, self.put(id, fields, version + 1, user)))
    }

    /// Changes these fields of a row.
    pub fn patch(
        &mut self,
        id: u64,
        fields: Map<String, Value>,
        user: &str,
    ) -> Option<(u64, Value)> {
        let version = self.version(id)?;
        let mut merged = self.rows.get(&id)?.clone();
        merged.extend(fields);
        Some((id, self.put(id, merged, version + 1, user)))
    }

    /// Removes a row.
    pub fn delete(&mut self, id: u64) -> Option<(u64, Value)> {
        self.rows.remove(&id).map(|row| (id, Value::Object(row)))
    }

    fn version(&self, id: u64) -> Option<u64> {
        self.rows.get(&id)?.get("version")?.as_u64()
    }

    /// The app sets the id, the version and who changed it last; values in the request are ignored.
    fn put(&mut self, id: u64, mut fields: Map<String, Value>, version: u64, user: &str) -> Value {
        fields.insert("id".to_owned(), json!(id));
        fields.insert("version".to_owned(), json!(version));
        fields.insert("changed_by".to_owned(), json!(user));
        self.rows.insert(id, fields.clone());
        Value::Object(fields)
    }
}

/// The reference data that all tenants share.
pub fn areas() -> Value {
    let names = [
        "North Shore",
        "Old Town",
        "Harbour",
        "West Hills",
        "University",
        "Airport",
        "Lakeside",
        "Market Square",
    ];
    let areas: Vec<_> =
        names.iter().enumerate().map(|(at, name)| json!({ "id": at + 1, "name": name })).collect();
    json!({ "areas": areas })
}
