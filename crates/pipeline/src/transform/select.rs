//! From the text of a SELECT to planned expressions: what is allowed, and the rest refused in place.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Expr as SqlExpr, GroupByExpr, Ident, ObjectName, Query, Select as SqlSelect,
    SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Spanned, Statement, TableFactor,
    WildcardAdditionalOptions,
};
use datafusion::sql::sqlparser::tokenizer::{Location, Token};

use super::{OutputColumn, Select, schema_of, stored};
use crate::record::is_own_column;
use crate::sql::scope::Scope;
use crate::sql::{SqlError, did_you_mean, end_of, message_of, name_of, parser};

/// What a transform may be, for messages.
const SHAPE: &str =
    "a transform is one `SELECT … FROM its_stream [WHERE …]`: it projects and filters";

pub(super) fn plan(
    stream: &str,
    input: SchemaRef,
    sql: &str,
) -> Result<(Select, SchemaRef), SqlError> {
    let query = parse(sql)?;
    let select = only_select(&query)?;
    only_projection_and_filter(select)?;
    let qualifier = source(select, stream, sql)?;
    let scope = Scope::new(Arc::clone(&input), Some(&qualifier), "transform")?;
    let mut planner = Planner { scope, qualifier, input, columns: Vec::new(), fields: Vec::new() };
    let filter = select.selection.as_ref().map(|expr| planner.filter(expr)).transpose()?;
    for item in &select.projection {
        planner.item(item)?;
    }
    if planner.columns.is_empty() {
        return Err(SqlError::at(select.span().start, "the transform keeps no column"));
    }
    Ok((Select { filter, columns: planner.columns }, schema_of(planner.fields)))
}

fn parse(sql: &str) -> Result<Query, SqlError> {
    let mut parser = parser(sql)?;
    let statement = parser.parse_statement().map_err(|error| SqlError::from_parser(&error, sql))?;
    while parser.consume_token(&Token::SemiColon) {}
    let rest = parser.peek_token_ref();
    if rest.token != Token::EOF {
        let message = format!("expected the end of the SELECT, found `{}`", rest.token);
        return Err(SqlError::at(rest.span.start, message));
    }
    match statement {
        Statement::Query(query) => Ok(*query),
        _ => Err(SqlError::at(Location { line: 1, column: 1 }, SHAPE)),
    }
}

fn refuse<T>(location: Location, what: &str) -> Result<T, SqlError> {
    Err(SqlError::at(location, format!("{what} is not possible here: {SHAPE}")))
}

/// The SELECT of a query that has nothing around it.
fn only_select(query: &Query) -> Result<&SqlSelect, SqlError> {
    let start = query.span().start;
    if let Some(with) = &query.with {
        return refuse(with.span().start, "WITH");
    }
    if let Some(order) = &query.order_by {
        return refuse(order.span().start, "ORDER BY");
    }
    if let Some(limit) = &query.limit_clause {
        return refuse(limit.span().start, "LIMIT");
    }
    if let Some(fetch) = &query.fetch {
        return refuse(fetch.span().start, "FETCH");
    }
    let extra = !query.locks.is_empty()
        || query.for_clause.is_some()
        || query.settings.is_some()
        || query.format_clause.is_some()
        || !query.pipe_operators.is_empty();
    if extra {
        return refuse(start, "a clause after the WHERE");
    }
    match query.body.as_ref() {
        SetExpr::Select(select) => Ok(select),
        SetExpr::SetOperation { op, right, .. } => {
            refuse(right.span().start, &format!("{op} (the part that begins here)"))
        }
        SetExpr::Query(inner) => refuse(inner.span().start, "a nested query"),
        other => refuse(other.span().start, "this statement"),
    }
}

fn only_projection_and_filter(select: &SqlSelect) -> Result<(), SqlError> {
    let start = select.span().start;
    if select.distinct.is_some() {
        return refuse(start, "DISTINCT");
    }
    if let GroupByExpr::Expressions(exprs, modifiers) = &select.group_by {
        if let Some(first) = exprs.first() {
            return refuse(first.span().start, "GROUP BY");
        }
        if !modifiers.is_empty() {
            return refuse(start, "GROUP BY");
        }
    } else {
        return refuse(start, "GROUP BY ALL");
    }
    if let Some(having) = &select.having {
        return refuse(having.span().start, "HAVING");
    }
    if let Some(qualify) = &select.qualify {
        return refuse(qualify.span().start, "QUALIFY");
    }
    if let Some(top) = &select.top {
        let _ = top;
        return refuse(start, "TOP");
    }
    if let Some(into) = &select.into {
        return refuse(into.span().start, "INTO");
    }
    let extra = select.select_modifiers.is_some()
        || select.exclude.is_some()
        || !select.lateral_views.is_empty()
        || select.prewhere.is_some()
        || !select.connect_by.is_empty()
        || !select.cluster_by.is_empty()
        || !select.distribute_by.is_empty()
        || !select.sort_by.is_empty()
        || !select.named_window.is_empty()
        || select.value_table_mode.is_some();
    if extra { refuse(start, "a clause of this SELECT") } else { Ok(()) }
}

/// Checks that FROM names the stream alone; gives back the name its columns are qualified by.
fn source(select: &SqlSelect, stream: &str, sql: &str) -> Result<String, SqlError> {
    let [from] = select.from.as_slice() else {
        return match select.from.get(1) {
            None => Err(SqlError::at(end_of(sql), format!("expected FROM {}", table_name(stream)))),
            Some(second) => refuse(second.span().start, "a second table"),
        };
    };
    if let Some(join) = from.joins.first() {
        return refuse(join.span().start, "a join");
    }
    let TableFactor::Table { name, alias, args: None, version: None, sample: None, .. } =
        &from.relation
    else {
        return refuse(from.relation.span().start, "anything but the stream in FROM");
    };
    if written(name) != stream {
        let hint = did_you_mean(&written(name), [stream]);
        let message = format!(
            "unknown table `{}`: a transform reads its own stream, `{stream}`{hint}",
            written(name)
        );
        return Err(SqlError::at(name.span().start, message));
    }
    match alias {
        Some(alias) if !alias.columns.is_empty() => {
            refuse(alias.name.span.start, "an alias with column names")
        }
        Some(alias) => Ok(name_of(&alias.name).to_owned()),
        None => Ok(stream.to_owned()),
    }
}

/// A table's name as one text: a stream's name may hold points, quoted or not.
fn written(name: &ObjectName) -> String {
    let part = |part: &datafusion::sql::sqlparser::ast::ObjectNamePart| {
        part.as_ident().map(|ident| name_of(ident).to_owned()).unwrap_or_default()
    };
    name.0.iter().map(part).collect::<Vec<_>>().join(".")
}

fn table_name(stream: &str) -> String {
    crate::schema::ddl::quoted(stream)
}

struct Planner {
    scope: Scope,
    qualifier: String,
    input: SchemaRef,
    columns: Vec<OutputColumn>,
    fields: Vec<Field>,
}

impl Planner {
    fn filter(&self, expr: &SqlExpr) -> Result<Arc<dyn PhysicalExpr>, SqlError> {
        self.scope.judge(expr)?;
        let planned = self.scope.plan(expr)?;
        match planned.data_type(&self.input) {
            Ok(DataType::Boolean) => Ok(planned),
            Ok(other) => Err(SqlError::at(
                expr.span().start,
                format!("WHERE takes a condition, but `{expr}` is {other}"),
            )),
            Err(error) => Err(SqlError::at(expr.span().start, message_of(&error))),
        }
    }

    fn item(&mut self, item: &SelectItem) -> Result<(), SqlError> {
        match item {
            SelectItem::UnnamedExpr(expr) => {
                let name = match expr {
                    SqlExpr::Identifier(ident) => ident,
                    SqlExpr::CompoundIdentifier(parts) if !parts.is_empty() => parts
                        .last()
                        .ok_or_else(|| SqlError::at(expr.span().start, "an empty name"))?,
                    _ => {
                        self.scope.judge(expr)?;
                        return Err(SqlError::at(
                            expr.span().start,
                            format!("`{expr}` needs a name: `{expr} AS name`"),
                        ));
                    }
                };
                self.expression(expr, name_of(name), expr.span().start)
            }
            SelectItem::ExprWithAlias { expr, alias } => {
                let name = name_of(alias);
                if name.is_empty() || (is_own_column(name) && !self.is_plain(expr, name)) {
                    let message = match name {
                        "" => "an empty name".to_owned(),
                        _ => format!("`{name}` is a column that Forebay fills itself"),
                    };
                    return Err(SqlError::at(alias.span.start, message));
                }
                self.expression(expr, name, alias.span.start)
            }
            SelectItem::Wildcard(options) => self.wildcard(options),
            SelectItem::QualifiedWildcard(kind, options) => match kind {
                SelectItemQualifiedWildcardKind::ObjectName(name)
                    if written(name) == self.qualifier =>
                {
                    self.wildcard(options)
                }
                _ => refuse(kind.span().start, "this wildcard"),
            },
            SelectItem::ExprWithAliases { expr, .. } => {
                refuse(expr.span().start, "an expression with several names")
            }
        }
    }

    /// True for a column under its own name.
    fn is_plain(&self, expr: &SqlExpr, name: &str) -> bool {
        matches!(expr, SqlExpr::Identifier(ident) if name_of(ident) == name)
    }

    fn expression(&mut self, expr: &SqlExpr, name: &str, at: Location) -> Result<(), SqlError> {
        self.scope.judge(expr)?;
        let planned = self.scope.plan(expr)?;
        self.push(planned, name, at, expr.span().start)
    }

    /// Adds an output column. `named_at` is where its name stands, `at` where its expression does.
    fn push(
        &mut self,
        expr: Arc<dyn PhysicalExpr>,
        name: &str,
        named_at: Location,
        at: Location,
    ) -> Result<(), SqlError> {
        if self.fields.iter().any(|field| field.name() == name) {
            let message = format!("the transform has two columns `{name}`; rename one with AS");
            return Err(SqlError::at(named_at, message));
        }
        let field =
            expr.return_field(&self.input).map_err(|error| SqlError::at(at, message_of(&error)))?;
        let Some(ty) = stored(field.data_type()) else {
            let message = match field.data_type() {
                DataType::Null => format!("`{name}` is always NULL: give it a type with CAST"),
                other => format!("`{name}` is {other}, which cannot be stored; CAST it"),
            };
            return Err(SqlError::at(at, message));
        };
        // A computed column may give NULL whatever its type promises; only a column as it stands
        // keeps its NOT NULL.
        let nullable = expr.downcast_ref::<Column>().is_none() || field.is_nullable();
        let cast = (ty != *field.data_type()).then(|| ty.clone());
        let output = Field::new(name, ty, nullable).with_metadata(field.metadata().clone());
        self.fields.push(output);
        self.columns.push(OutputColumn { expr, cast });
        Ok(())
    }

    fn wildcard(&mut self, options: &WildcardAdditionalOptions) -> Result<(), SqlError> {
        let at = options.wildcard_token.0.span.start;
        if options.opt_ilike.is_some()
            || options.opt_rename.is_some()
            || options.opt_alias.is_some()
        {
            return refuse(at, "ILIKE, RENAME or AS after `*`");
        }
        let mut left_out = Vec::new();
        for ident in excluded(options, at)? {
            left_out.push(self.scope.index(&ident)?);
        }
        let mut replaced = Vec::new();
        for element in options.opt_replace.iter().flat_map(|replace| &replace.items) {
            replaced.push((self.scope.index(&element.column_name)?, &element.expr));
        }
        let input = Arc::clone(&self.input);
        for (index, field) in input.fields().iter().enumerate() {
            if left_out.contains(&index) {
                continue;
            }
            match replaced.iter().find(|(column, _)| *column == index) {
                Some((_, expr)) => self.expression(expr, field.name(), expr.span().start)?,
                None => {
                    let column = Arc::new(Column::new(field.name(), index));
                    self.push(column, field.name(), at, at)?;
                }
            }
        }
        Ok(())
    }
}

/// The names after EXCEPT or EXCLUDE.
fn excluded(options: &WildcardAdditionalOptions, at: Location) -> Result<Vec<Ident>, SqlError> {
    let mut names = Vec::new();
    if let Some(except) = &options.opt_except {
        names.push(except.first_element.clone());
        names.extend(except.additional_elements.iter().cloned());
    }
    let listed: &[ObjectName] = match &options.opt_exclude {
        Some(ExcludeSelectItem::Single(name)) => std::slice::from_ref(name),
        Some(ExcludeSelectItem::Multiple(list)) => list,
        None => &[],
    };
    for name in listed {
        match name.0.as_slice() {
            [part] if part.as_ident().is_some() => names.extend(part.as_ident().cloned()),
            _ => return refuse(at, "this EXCLUDE"),
        }
    }
    Ok(names)
}
