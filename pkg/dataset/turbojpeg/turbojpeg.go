//go:build turbojpeg && cgo && linux

package turbojpeg

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stddef.h>

// The functions of the TurboJPEG interface that are used (turbojpeg.h, unchanged since 1.4).
static struct {
	void* (*init)(void);
	int (*destroy)(void*);
	int (*header)(void*, const unsigned char*, unsigned long, int*, int*, int*, int*);
	int (*decompress)(void*, const unsigned char*, unsigned long, unsigned char*, int, int, int, int, int);
} tj;

// Loads the library; 0 if that fails.
static int blip2_tj_load(void) {
	void* lib = dlopen("libturbojpeg.so.0", RTLD_NOW | RTLD_LOCAL);
	if (!lib) return 0;
	tj.init = (void* (*)(void))dlsym(lib, "tjInitDecompress");
	tj.destroy = (int (*)(void*))dlsym(lib, "tjDestroy");
	tj.header = (int (*)(void*, const unsigned char*, unsigned long, int*, int*, int*, int*))
		dlsym(lib, "tjDecompressHeader3");
	tj.decompress = (int (*)(void*, const unsigned char*, unsigned long, unsigned char*, int, int, int, int, int))
		dlsym(lib, "tjDecompress2");
	return tj.init && tj.destroy && tj.header && tj.decompress;
}

static void* blip2_tj_init(void) { return tj.init(); }
static void blip2_tj_destroy(void* handle) { tj.destroy(handle); }

// Decodes a picture of the known size if it is of a kind for which all versions of the library give the same samples:
// grey, or colour with chroma whole, halved across, or halved in both directions. 0 if all went well.
static int blip2_tj_decode(void* handle, const unsigned char* data, unsigned long size, unsigned char* dst, int w,
	int h) {
	enum { RGB = 0, ACCURATE_DCT = 4096, LAST_SAMPLING = 3, LAST_COLORSPACE = 2 };
	int width, height, sampling, colorspace;
	if (tj.header(handle, data, size, &width, &height, &sampling, &colorspace) != 0) return -1;
	if (width != w || height != h || sampling < 0 || sampling > LAST_SAMPLING) return -1;
	if (colorspace > LAST_COLORSPACE) return -1;
	return tj.decompress(handle, data, size, dst, w, 3 * w, h, RGB, ACCURATE_DCT);
}
*/
import "C"

import (
	"os"
	"runtime"
	"sync"
	"unsafe"

	"blip2/pkg/dataset/jpeg"
	"blip2/pkg/internal/measure"
)

// load loads the library once.
//
// It gives Go's scheduler places for twice as many threads as there are processors, unless GOMAXPROCS says otherwise. A
// call of the library is long enough for the scheduler to give the caller's place to another thread, and with no more
// places than processors the caller waits for one when it comes back: two workers were 1.6 times as fast as one, and
// are 1.9 times.
var load = sync.OnceValue(func() bool {
	if C.blip2_tj_load() == 0 {
		return false
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(2 * measure.Processors)
	}
	return true
})

// Available says whether the library is there.
func Available() bool { return load() }

// Decoder decodes one picture after the other, as jpeg.Decoder does.
type Decoder struct {
	plain  jpeg.Decoder
	data   []byte
	w, h   int
	pix    []byte // the whole picture
	handle unsafe.Pointer

	library bool // the last picture was decoded by the library
}

// NewDecoder gives a decoder. What it holds of the library goes with it.
func NewDecoder() *Decoder {
	d := new(Decoder)
	if load() {
		d.handle = C.blip2_tj_init()
		runtime.AddCleanup(d, func(handle unsafe.Pointer) { C.blip2_tj_destroy(handle) }, d.handle)
	}
	return d
}

// Open is jpeg.Decoder.Open.
func (d *Decoder) Open(data []byte) (width, height int, err error) {
	d.data = data
	d.w, d.h, err = d.plain.Open(data)
	return d.w, d.h, err
}

// Decode is jpeg.Decoder.Decode. The library decodes whole pictures, of which the part is then taken.
func (d *Decoder) Decode(dst []byte, part jpeg.Part, lenient bool) error {
	d.library = false
	if d.handle == nil || d.plain.Components() == 4 {
		return d.plain.Decode(dst, part, lenient)
	}
	whole := part == jpeg.Part{Width: d.w, Height: d.h}
	to := dst
	if !whole {
		if cap(d.pix) < 3*d.w*d.h {
			d.pix = make([]byte, 3*d.w*d.h)
		}
		to = d.pix[:3*d.w*d.h]
	}
	// Anything but plain success, warnings too, is for the decoder that knows what is due.
	if C.blip2_tj_decode(d.handle, (*C.uchar)(&d.data[0]), C.ulong(len(d.data)), (*C.uchar)(&to[0]), C.int(d.w),
		C.int(d.h)) != 0 {
		return d.plain.Decode(dst, part, lenient)
	}
	d.library = true
	if !whole {
		for y := range part.Height {
			at := ((part.Top+y)*d.w + part.Left) * 3
			copy(dst[y*3*part.Width:(y+1)*3*part.Width], to[at:])
		}
	}
	return nil
}
