package sharing

import (
	"reflect"
	"sync"
)

// share makes dst hold the memory of src wherever both say the same, and reports
// whether they do throughout. It writes to what dst points to, which must be
// nobody else's, and only reads what src does.
func share(dst, src reflect.Value) bool {
	switch dst.Kind() {
	case reflect.String:
		if dst.String() != src.String() {
			return false
		}
		return take(dst, src)
	case reflect.Pointer:
		if dst.Pointer() == src.Pointer() {
			return true
		}
		if dst.IsNil() || src.IsNil() || !share(dst.Elem(), src.Elem()) {
			return false
		}
		return take(dst, src)
	case reflect.Slice:
		return shareSlice(dst, src)
	case reflect.Map:
		return shareMap(dst, src)
	case reflect.Struct:
		return shareStruct(dst, src)
	case reflect.Interface, reflect.Array:
		return reflect.DeepEqual(dst.Interface(), src.Interface())
	default:
		return dst.Equal(src)
	}
}

// take lets dst be what src is, which it equals. A map's values can't be set;
// with its last one the map itself can.
func take(dst, src reflect.Value) bool {
	if dst.CanSet() {
		dst.Set(src)
	}
	return true
}

func shareSlice(dst, src reflect.Value) bool {
	if dst.IsNil() || src.IsNil() {
		return dst.IsNil() && src.IsNil()
	}
	if dst.Len() == src.Len() && dst.Type().Elem().Kind() == reflect.Uint8 {
		return string(dst.Bytes()) == string(src.Bytes()) && take(dst, src)
	}
	same := dst.Len() == src.Len()
	for i := range min(dst.Len(), src.Len()) {
		// Elements are mostly added at the end and changed in place.
		same = share(dst.Index(i), src.Index(i)) && same
	}
	return same && take(dst, src)
}

func shareMap(dst, src reflect.Value) bool {
	if dst.Len() != src.Len() || dst.IsNil() != src.IsNil() {
		return false
	}
	for entries := dst.MapRange(); entries.Next(); {
		other := src.MapIndex(entries.Key())
		if !other.IsValid() || !reflect.DeepEqual(entries.Value().Interface(), other.Interface()) {
			return false
		}
	}
	return take(dst, src)
}

func shareStruct(dst, src reflect.Value) bool {
	if !isRecord(dst.Type()) {
		return reflect.DeepEqual(dst.Interface(), src.Interface())
	}
	same := true
	for i := range dst.NumField() {
		same = share(dst.Field(i), src.Field(i)) && same
	}
	return same
}

// records remembers isRecord's answers: reflect.Type → bool.
var records sync.Map

// isRecord reports whether a struct is but its fields, all exported. A quantity
// or a time is a value of its own.
func isRecord(t reflect.Type) bool {
	if known, ok := records.Load(t); ok {
		return known.(bool)
	}
	record := true
	for i := range t.NumField() {
		record = record && t.Field(i).IsExported()
	}
	records.Store(t, record)
	return record
}
