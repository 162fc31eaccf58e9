//! stub
use super::*;
#[derive(Debug)]
pub struct DeltaSink;
pub struct DeltaOptions;
impl DeltaOptions {
    pub fn new(_: forebay_flow::pool::Pool) -> Self {
        DeltaOptions
    }
}
impl DeltaSink {
    pub async fn open(
        _: disk_store::DiskStore,
        _: &str,
        _: DeltaOptions,
    ) -> Result<DeltaSink, SinkError> {
        Ok(DeltaSink)
    }
}
#[async_trait]
impl Sink for DeltaSink {
    fn kind(&self) -> &'static str {
        "delta"
    }
    async fn position(&self, _: &str) -> Result<Option<Committed>, SinkError> {
        Ok(None)
    }
    async fn commit(&self, _: Flush) -> Result<(), SinkError> {
        Ok(())
    }
    async fn table(
        &self,
    ) -> Result<Option<std::sync::Arc<dyn datafusion::catalog::TableProvider>>, SinkError> {
        Ok(None)
    }
}
