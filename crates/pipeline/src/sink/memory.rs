//! A sink in memory: the model the others are checked against, and what the simulation uses.
//!
//! Owns rows and positions behind an `Arc`: a clone is the same table, so it outlives the pipeline that wrote it as
//! a disk would. It never does I/O. Faults are switched on by the test that holds it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{MemTable, TableProvider};
use parking_lot::Mutex;

use super::parquet;
use super::widen::widen;
use super::{Committed, Flush, Sink, SinkError, admit};

/// What happens to the next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails and nothing is stored.
    Before,
    /// It is stored, and fails all the same: the reply is lost.
    After,
}

#[derive(Debug, Default)]
struct Table {
    schema: Option<SchemaRef>,
    batches: Vec<RecordBatch>,
    committed: HashMap<String, Committed>,
    fault: Option<Fault>,
}

/// A table in memory. Cheap to clone; clones are the same table.
#[derive(Debug, Clone, Default)]
pub struct MemorySink {
    table: Arc<Mutex<Table>>,
}

impl MemorySink {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the next commit fail.
    pub fn fail_next(&self, fault: Fault) {
        self.table.lock().fault = Some(fault);
    }

    /// All rows, in the order committed; columns added later are NULL in earlier rows.
    ///
    /// # Errors
    /// None that a committed table can cause.
    pub fn rows(&self) -> Result<Vec<RecordBatch>, SinkError> {
        let table = self.table.lock();
        let Some(schema) = &table.schema else { return Ok(Vec::new()) };
        table
            .batches
            .iter()
            .map(|batch| parquet::conform(batch, schema).map_err(schema_fault))
            .collect()
    }
}

fn schema_fault(error: impl ToString) -> SinkError {
    SinkError::Schema(error.to_string())
}

impl Table {
    fn commit(&mut self, flush: Flush) -> Result<(), SinkError> {
        if !admit(&flush, self.committed.get(&flush.app_id).copied())? {
            return Ok(());
        }
        let given = parquet::stored_schema(&flush.schema).map_err(schema_fault)?;
        let merged = match &self.schema {
            None => Some(Schema::clone(&given)),
            Some(held) => widen(held, &given)?,
        };
        let rows =
            flush.batches.iter().map(|batch| parquet::conform(batch, &given).map_err(schema_fault));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        if let Some(merged) = merged {
            self.schema = Some(Arc::new(merged));
        }
        self.batches.extend(rows);
        self.committed.insert(flush.app_id, Committed { end: flush.end, counts: flush.counts });
        Ok(())
    }
}

#[async_trait]
impl Sink for MemorySink {
    fn kind(&self) -> &'static str {
        "memory"
    }

    async fn position(&self, app_id: &str) -> Result<Option<Committed>, SinkError> {
        Ok(self.table.lock().committed.get(app_id).copied())
    }

    async fn commit(&self, flush: Flush) -> Result<(), SinkError> {
        let mut table = self.table.lock();
        match table.fault.take() {
            Some(Fault::Before) => Err(SinkError::Io("failed on purpose".to_owned())),
            Some(Fault::After) => {
                table.commit(flush)?;
                Err(SinkError::Io("failed on purpose, after the commit".to_owned()))
            }
            None => table.commit(flush),
        }
    }

    async fn takes(&self, schema: &SchemaRef) -> Result<(), SinkError> {
        let given = parquet::stored_schema(schema).map_err(schema_fault)?;
        match &self.table.lock().schema {
            Some(held) => widen(held, &given).map(drop),
            None => Ok(()),
        }
    }

    async fn table(&self) -> Result<Option<Arc<dyn TableProvider>>, SinkError> {
        let batches = self.rows()?;
        let Some(schema) = self.table.lock().schema.clone() else { return Ok(None) };
        let table = MemTable::try_new(schema, vec![batches]).map_err(schema_fault)?;
        Ok(Some(Arc::new(table)))
    }
}
