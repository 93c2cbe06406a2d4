package remotewrite

import "testing"

func FuzzV1(f *testing.F) {
	for _, c := range seedsV1() {
		f.Add(c)
	}
	f.Fuzz(compareV1)
}

func FuzzV2(f *testing.F) {
	for _, c := range seedsV2() {
		f.Add(c)
	}
	f.Fuzz(compareV2)
}
