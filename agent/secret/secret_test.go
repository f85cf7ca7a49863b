package secret

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headgate/headgate/policy"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	put := func(name, value string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("shop/file", "abc\n")
	put("shop/plain", "a b\tc")
	put("shop/key/token", "key\r\n")
	put("shop/mounted/..2026/token", "old")
	put("shop/two/a", "a")
	put("shop/two/b", "b")
	put("shop/none/.hidden", "a")
	put("shop/lines", "a\nX-Evil: b\n")
	put("shop/empty", "\n")
	put("shop/long", strings.Repeat("a", maxValue+1))
	put("secret", "outside")
	if err := os.Symlink("..2026/token", filepath.Join(dir, "shop/mounted/token")); err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{
		"shop/file": "abc", "shop/plain": "a b\tc", "shop/key": "key", "shop/mounted": "old",
		"shop/two": "!", "shop/none": "!", "shop/lines": "!", "shop/empty": "!", "shop/long": "!", "shop/missing": "!",
		"../secret": "!", "shop/..": "!", "shop/../secret": "!", ".": "!",
	} {
		namespace, name, _ := strings.Cut(ref, "/")
		got, err := Dir(dir).Read(policy.SecretRef{Namespace: namespace, Name: name})
		if want == "!" && err == nil || want != "!" && (err != nil || got != want) {
			t.Errorf("%s: got %q, %v", ref, got, err)
		}
		if err != nil && (strings.Contains(err.Error(), "Evil") || strings.Contains(err.Error(), "outside")) {
			t.Errorf("%s: the error has the value: %v", ref, err)
		}
	}
	if _, err := Dir("").Read(policy.SecretRef{Namespace: "a", Name: "b"}); err == nil {
		t.Error("no directory is no error")
	}
}

func TestReadKey(t *testing.T) {
	dir := t.TempDir()
	for name, value := range map[string]string{"shop/tls/tls.crt": "two\nlines\n", "shop/tls/long": strings.Repeat("a", maxKey+1), "outside": "outside"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for key, want := range map[string]string{"tls.crt": "two\nlines\n", "tls.key": "!", "long": "!", "../../outside": "!", "..": "!"} {
		got, err := Dir(dir).Read(policy.SecretRef{Namespace: "shop", Name: "tls", Key: key})
		if want == "!" && err == nil || want != "!" && (err != nil || got != want) {
			t.Errorf("%s: got %q, %v", key, got, err)
		}
	}
}
