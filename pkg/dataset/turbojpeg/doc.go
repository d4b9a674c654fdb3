// Package turbojpeg decodes JPEG pictures by libjpeg-turbo, where the program is built with the tag turbojpeg and cgo
// on Linux and the library is found when the program runs (libturbojpeg.so.0, Debian's package libturbojpeg0). Neither
// its headers nor the library are needed to build. Pictures that its simple interface does not take, damaged ones and
// anything else out of the ordinary go to the decoder of package jpeg, whose samples are the same; without the library
// all do.
package turbojpeg
