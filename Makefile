# What a developer does with Herald. CI runs .ci/run.
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

REDOCLY := @redocly/cli@2.77.0

.PHONY: run build test race property faults capacity imports import-million fuzz lint contract bench pairs

run: ## start everything in one process, with demo data
	go run ./cmd/herald demo

build: ## build the three programs into bin/
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/...

test: ## the whole suite; also on PostgreSQL and redis-server where they are found
	go test ./...

race: ## the suite under the race detector, without what only the SQLite suite repeats
	go test -race -skip '/sqlite$$|TestFailureMatrix' ./...

property: ## the same audience everywhere, for ten thousand random descriptions; every route with two thousand random values
	go test ./pkg/store/search -run TestTheSameAudienceEverywhere -rapid.checks=10000
	go test ./api -run TestFaultValuesEveryRouteTakesWhatWasAccepted -rapid.checks=2000 -timeout 30m

faults: ## the failure matrix in its long form, with its table; some ten minutes
	go test ./pkg/app -run TestFailureMatrix -faults.long -v -timeout 90m -count=1 | grep -v '^{'

capacity: ## 2,000 bulks that wait beside one that does not, 300 small ones, 1,000 under kills; some three minutes
	go test ./pkg/app -run 'TestFault(WaitingBulks|SmallBulks|NoKeyStaysAfter)' -capacity.full -v -count=1 | grep -v '^{'

pairs: ## 2,000 random pairs of concurrent writes on each database; some minutes
	go test ./pkg/store -run TestFaultPairsOfWrites -faults.pairs=2000 -v -timeout 30m -count=1

imports: ## thirty concurrent imports of the same 5,000 people on each database; half a minute
	go test ./pkg/lead -run TestCaseThirtyImportsOfTheSamePeople -import.people=5000 -v -timeout 30m -count=1

import-million: ## a file of a million rows through the command line, twice: time and memory; let nothing else run meanwhile
	go test ./pkg/app -run TestCaseAnImportOfManyRows -import.rows=1000000 -v -timeout 30m -count=1 | grep -v '^{'

fuzz: ## each fuzz target for a minute
	set -e; for t in api:FuzzSend pkg/wire:FuzzDecode pkg/lead:FuzzImport pkg/store/search:FuzzAudience pkg/render:FuzzTemplate pkg/render:FuzzTemplateGrammar pkg/audience:FuzzUsable \
	  pkg/access:FuzzToken pkg/access:FuzzIdempotencyKey pkg/contactfile:FuzzReader pkg/message:FuzzNormalize pkg/dates:FuzzParse; do \
	  go test ./$${t%%:*} -run '^$$' -fuzz "^$${t##*:}$$" -fuzztime 60s -fuzzminimizetime 1s; done

lint: ## formatting, vet and golangci-lint
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go vet ./...
	go run $(GOLANGCI) run ./...

contract: contract-lint ## four generators make clients of the OpenAPI document; each is compiled and run; needs npm
	api/openapi/generators/run.sh

contract-lint: ## the OpenAPI document, as a public linter sees it; needs npx
	d=$$(mktemp -d) && go run ./cmd/herald openapi > $$d/openapi.json && npx --yes $(REDOCLY) lint --config api/openapi/redocly.yaml $$d/openapi.json; s=$$?; rm -rf $$d; exit $$s

bench: ## Go benchmarks of the hot parts; compare two runs with benchstat. `herald bench` measures the whole
	go test -run '^$$' -bench 'Decode|Compile|Render|Segments|TakeAndSettle|Enqueue|Process|Count$$' -benchmem -count 3 ./pkg/wire ./pkg/render ./pkg/store/ledger ./pkg/store/search ./pkg/queue ./pkg/counters
