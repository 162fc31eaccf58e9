//! One stream's columns as an expression sees them: names are resolved, functions judged and
//! expressions planned, every fault at its position.
//!
//! An expression here is a pure function of one row: no aggregate, window, subquery, clock or dice.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, Volatility};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::BinaryExpr;
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, ExprWithAlias, Function, Ident, Query, Spanned, Value, Visit, Visitor,
};
use datafusion::sql::sqlparser::tokenizer::Location;

use super::{SqlError, did_you_mean, message_of, name_of, session};

/// The columns an expression may name.
pub(crate) struct Scope {
    schema: SchemaRef,
    columns: DFSchema,
    /// What may stand before a column's name and a point.
    qualifier: Option<String>,
    /// How the expression is called in messages.
    what: &'static str,
}

impl Scope {
    /// The scope of a schema; `qualifier` is the table's name or alias, where there is one.
    pub(crate) fn new(
        schema: SchemaRef,
        qualifier: Option<&str>,
        what: &'static str,
    ) -> Result<Scope, SqlError> {
        let columns = match qualifier {
            Some(name) => DFSchema::try_from_qualified_schema(
                datafusion::common::TableReference::bare(name),
                &schema,
            ),
            None => DFSchema::try_from(Arc::clone(&schema)),
        };
        let columns = columns
            .map_err(|error| SqlError::at(Location { line: 1, column: 1 }, message_of(&error)))?;
        Ok(Scope { schema, columns, qualifier: qualifier.map(str::to_owned), what })
    }

    /// The index of a column by its name, case kept.
    pub(crate) fn index(&self, ident: &Ident) -> Result<usize, SqlError> {
        let name = name_of(ident);
        if let Ok(index) = self.schema.index_of(name) {
            return Ok(index);
        }
        let names = self.schema.fields().iter().map(|field| field.name().as_str());
        let mut hint = did_you_mean(name, names);
        if hint.is_empty() && ident.quote_style == Some('"') {
            hint = format!("; a text is written in single quotes: '{name}'");
        }
        Err(SqlError::at(ident.span.start, format!("unknown column `{name}`{hint}")))
    }

    /// Judges an expression and gives back the indices of the columns it reads.
    pub(crate) fn judge(&self, expr: &SqlExpr) -> Result<BTreeSet<usize>, SqlError> {
        let mut judge = Judge { scope: self, used: BTreeSet::new() };
        match expr.visit(&mut judge) {
            ControlFlow::Continue(()) => Ok(judge.used),
            ControlFlow::Break(error) => Err(error),
        }
    }

    /// Plans an expression that [`Scope::judge`] has passed.
    pub(crate) fn plan(&self, expr: &SqlExpr) -> Result<Arc<dyn PhysicalExpr>, SqlError> {
        let start = expr.span().start;
        self.plan_inner(expr.clone()).map_err(|error| {
            let location = error
                .diagnostic()
                .and_then(|diagnostic| diagnostic.span)
                .map(|span| Location { line: span.start.line, column: span.start.column });
            SqlError::at(location.unwrap_or(start), message_of(&error))
        })
    }

    fn plan_inner(&self, expr: SqlExpr) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
        let state = session();
        let expr = ExprWithAlias { expr, alias: None };
        let expr = state.create_logical_expr_from_sql_expr(expr, &self.columns)?;
        let context = SimplifyContext::builder()
            .with_schema(Arc::new(self.columns.clone()))
            .with_config_options(Arc::clone(state.config_options()))
            .build();
        let simplifier = ExprSimplifier::new(context);
        let expr = simplifier.coerce(expr, &self.columns)?;
        if let Some(fault) = impure(&expr)? {
            return datafusion::common::plan_err!("{fault} is not possible in a {}", self.what);
        }
        // A constant part that fails (1 / 0) fails for each row it is evaluated on, not at planning.
        let simplified = simplifier.simplify(expr.clone()).unwrap_or(expr);
        let physical = state.create_physical_expr(simplified, &self.columns)?;
        checked(physical)
    }
}

/// What makes a planned expression more than a function of its row, if anything does.
fn impure(expr: &Expr) -> Result<Option<&'static str>, DataFusionError> {
    let mut fault = None;
    expr.apply(|node| {
        fault = match node {
            Expr::AggregateFunction(_) => Some("an aggregate"),
            Expr::WindowFunction(_) => Some("a window function"),
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => Some("a subquery"),
            Expr::Placeholder(_) => Some("a placeholder"),
            Expr::ScalarVariable(..) => Some("a variable"),
            Expr::ScalarFunction(call)
                if call.func.signature().volatility != Volatility::Immutable =>
            {
                Some("a function whose result changes from call to call")
            }
            _ => return Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue),
        };
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Stop)
    })?;
    Ok(fault)
}

/// Makes integer arithmetic fail on overflow instead of wrapping around.
fn checked(expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    expr.transform_up(|node| {
        Ok(match node.downcast_ref::<BinaryExpr>() {
            Some(binary) => {
                Transformed::yes(Arc::new(binary.clone().with_fail_on_overflow(true)) as _)
            }
            None => Transformed::no(node),
        })
    })
    .map(|transformed| transformed.data)
}

/// Walks an expression as written.
struct Judge<'a> {
    scope: &'a Scope,
    used: BTreeSet<usize>,
}

impl Judge<'_> {
    fn refuse(&self, location: Location, what: &str) -> ControlFlow<SqlError> {
        let message = format!(
            "{what} is not possible in a {}: it sees one row of its own stream",
            self.scope.what
        );
        ControlFlow::Break(SqlError::at(location, message))
    }

    fn column(&mut self, ident: &Ident) -> ControlFlow<SqlError> {
        match self.scope.index(ident) {
            Ok(index) => {
                self.used.insert(index);
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn function(&self, function: &Function) -> ControlFlow<SqlError> {
        let location = function.name.span().start;
        let name = function.name.to_string().to_lowercase();
        let state = session();
        if function.over.is_some() {
            return self.refuse(location, &format!("a window function (`{name}`)"));
        }
        if let Some(found) = state.scalar_functions().get(&name) {
            if found.signature().volatility == Volatility::Immutable {
                return ControlFlow::Continue(());
            }
            let message = format!(
                "`{name}` gives another result on each call: a {} must give the same rows when it \
                 runs again after a restart",
                self.scope.what
            );
            return ControlFlow::Break(SqlError::at(location, message));
        }
        if state.aggregate_functions().contains_key(&name) {
            return self.refuse(location, &format!("an aggregate (`{name}`)"));
        }
        if state.window_functions().contains_key(&name) {
            return self.refuse(location, &format!("a window function (`{name}`)"));
        }
        let names = state.scalar_functions().keys().map(String::as_str);
        let hint = did_you_mean(&name, names);
        ControlFlow::Break(SqlError::at(location, format!("unknown function `{name}`{hint}")))
    }
}

impl Visitor for Judge<'_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<SqlError> {
        self.refuse(query.span().start, "a subquery")
    }

    fn pre_visit_expr(&mut self, expr: &SqlExpr) -> ControlFlow<SqlError> {
        match expr {
            SqlExpr::Identifier(ident) => self.column(ident),
            SqlExpr::CompoundIdentifier(parts) => match parts.as_slice() {
                [table, column] if self.scope.qualifier.as_deref() == Some(name_of(table)) => {
                    self.column(column)
                }
                [first, ..] => {
                    let hint = did_you_mean(name_of(first), self.scope.qualifier.as_deref());
                    let message = format!("unknown table `{}`{hint}", name_of(first));
                    ControlFlow::Break(SqlError::at(first.span.start, message))
                }
                [] => ControlFlow::Continue(()),
            },
            SqlExpr::Function(function) => self.function(function),
            SqlExpr::Lambda(_) => self.refuse(expr.span().start, "a lambda"),
            SqlExpr::Value(value) if matches!(value.value, Value::Placeholder(_)) => {
                self.refuse(value.span.start, "a placeholder")
            }
            _ => ControlFlow::Continue(()),
        }
    }
}
