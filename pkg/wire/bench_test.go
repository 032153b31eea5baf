package wire

import "testing"

func BenchmarkDecode(b *testing.B) {
	body := []byte(`{"sender_type":"email","bulk_settings":{"filters":{"conditions":[{"field":"first_name","operator":"contains","value":"st"},
		{"field":"tags","operator":"contains","value":["a","b"]}]}},"message_data":{"recipient":"x@example.com","subject":"Hello {{ first_name }}","content":"News"},"priority":3}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(body); err != nil {
			b.Fatal(err)
		}
	}
}
