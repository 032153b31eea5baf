//go:build race

package render

// slowness is how many times as much everything takes under the race detector, which also empties pools.
const slowness = 20
