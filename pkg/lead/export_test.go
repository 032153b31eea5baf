package lead

// SetBatchSize makes a service write batches of n rows, so that few rows make many batches.
func (s *Service) SetBatchSize(n int) { s.imports.batchSize = n }
