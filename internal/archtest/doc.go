// Package archtest keeps the rules of who may import whom as a test. docs/design.md
// gives their reasons.
package archtest
