// Package mesh lets several devices of one process compute together: a mesh of devices, the placement of a model's
// tensors on it, and programs that run there (design: one global program, partitioned by XLA's Shardy).
//
// A program is written as for one device, with the whole batch. Each device takes an equal share of the rows of every
// input; what a row needs of others, such as the features of the whole batch for ITC, XLA gathers. Trained tensors and
// optimizer slots are on every device, and their gradients are summed over all; so losses, updates and random draws are
// those of one device but for the order of summation.
//
// A store remembers its mesh: whoever makes an Exec on the store computes on the mesh. Without one all is as usual.
package mesh

import (
	"fmt"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/distributed"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/core/tensors/dtensor"
	mlx "github.com/gomlx/gomlx/ml/model"
)

// axis is the only axis of a mesh: the one that the rows of a batch are shared over.
const axis = "data"

// Mesh is a number of devices of one backend. The nil mesh is its first device alone.
type Mesh struct {
	backend    compute.Backend
	devices    *distributed.DeviceMesh
	replicated *distributed.ShardingSpec
	rows       *distributed.ShardingSpec // the first axis is shared
}

// New returns the mesh of the backend's first n devices; it is nil if n is 1.
func New(backend compute.Backend, n int) (*Mesh, error) {
	have := backend.NumDevices()
	switch {
	case n < 1:
		return nil, fmt.Errorf("%d devices: there must be 1 or more", n)
	case n > have:
		return nil, fmt.Errorf("%d devices are asked for, and the backend has %d", n, have)
	case n == 1:
		return nil, nil
	}
	devices, err := distributed.NewDeviceMesh([]int{n}, []string{axis})
	if err != nil {
		return nil, fmt.Errorf("mesh of %d devices: %w", n, err)
	}
	m := &Mesh{backend: backend, devices: devices, replicated: distributed.NewReplicatedShardingSpec(devices)}
	m.rows = m.shared(0)
	return m, nil
}

// Devices is how many devices the mesh has.
func (m *Mesh) Devices() int {
	if m == nil {
		return 1
	}
	return m.devices.NumDevices()
}

// shared is the placement in which the given axis of a tensor is cut into one part for each device.
func (m *Mesh) shared(tensorAxis int) *distributed.ShardingSpec {
	axes := make([]distributed.AxisSpec, tensorAxis+1)
	axes[tensorAxis] = distributed.AxisSpec{axis}
	return &distributed.ShardingSpec{Mesh: m.devices, Axes: axes}
}

// placeOf is where an input or result of a program lies: its rows are shared if each device gets the same number.
func (m *Mesh) placeOf(shape shapes.Shape) *distributed.ShardingSpec {
	if shape.Rank() > 0 && shape.Dimensions[0] > 0 && shape.Dimensions[0]%m.Devices() == 0 {
		return m.rows
	}
	return m.replicated
}

// storeKey is the store's parameter that holds its mesh.
const storeKey = "/mesh"

// Of returns the mesh that the store's tensors are on; nil is one device.
func Of(store *mlx.Store) *Mesh {
	value, _ := store.GetParam(storeKey)
	m, _ := value.(*Mesh)
	return m
}

// Place puts the store's tensors on the mesh, to be called when a model is complete: loaded, drawn, and frozen where it
// is to be. Trained tensors get a copy on every device. So do frozen ones, unless spread is set: then of every large
// frozen matrix each device keeps a part, and XLA gathers it when it is used.
//
// Values may lie in host memory or on the first device; that memory is freed. For the nil mesh nothing is done.
func (m *Mesh) Place(store *mlx.Store, spread bool) error {
	if m == nil {
		return nil
	}
	store.SetParam(storeKey, m)
	if spread {
		for v := range store.IterVariables() {
			if at := m.spreadAxis(v); at >= 0 {
				if err := v.SetShardingSpec(m.shared(at)); err != nil {
					return fmt.Errorf("tensor %s is on devices already: place a model once", v.Path())
				}
			}
		}
	}
	return Settle(store)
}

// spreadFrom is the size from which on a frozen matrix is worth being gathered.
const spreadFrom = 4096

// spreadAxis is the first axis of a large frozen matrix that makes equal parts, or -1.
func (m *Mesh) spreadAxis(v *mlx.Variable) int {
	shape := v.Shape()
	if v.Trainable || shape.Rank() < 2 || shape.Size() < spreadFrom {
		return -1
	}
	for i, n := range shape.Dimensions {
		if n%m.Devices() == 0 {
			return i
		}
	}
	return -1
}

// Settle puts tensors on the store's mesh that were created or set since the last time, such as optimizer slots or
// those of a checkpoint. GoMLX would do so at their first use, but with as many more copies in host memory.
func Settle(store *mlx.Store) error {
	m := Of(store)
	if m == nil {
		return nil
	}
	for v := range store.IterVariables() {
		place := v.ShardingSpec()
		if place == nil {
			place = m.replicated
		}
		// A variable that is on devices refuses to be placed; there is no other way to see it.
		if !v.HasValue() || v.SetShardingSpec(place) != nil {
			continue
		}
		if err := m.settle(v, place); err != nil {
			return fmt.Errorf("placing tensor %s on %d devices: %w", v.Path(), m.Devices(), err)
		}
	}
	return nil
}

func (m *Mesh) settle(v *mlx.Variable, place *distributed.ShardingSpec) error {
	value, err := v.Value()
	if err != nil {
		return err
	}
	parts, err := m.distribute(value, place)
	if err != nil {
		return err
	}
	return v.SetDistributedValue(parts) // frees value
}

// distribute copies a tensor to the devices; the tensor stays the caller's.
func (m *Mesh) distribute(t *tensors.Tensor, place *distributed.ShardingSpec) (*dtensor.Tensor, error) {
	if len(place.Axes) > 1 {
		return m.cut(t, place)
	}
	part := partOf(t.Shape(), place)
	size := int(part.ByteSize())
	shards := make([]*tensors.Tensor, m.Devices())
	var failed error
	err := t.ConstBytes(func(data []byte) {
		for i := range shards {
			from := 0
			if !place.IsReplicated() {
				from = i * size
			}
			if shards[i], failed = m.upload(i, part, data[from:from+size]); failed != nil {
				return
			}
		}
	})
	return m.join(place, shards, err, failed)
}

// upload copies the bytes of a tensor to a device. The memory is the backend's own, so that a program can write the new
// value of a variable over the old one; memory that host and device share cannot be used so.
func (m *Mesh) upload(device int, shape shapes.Shape, data []byte) (*tensors.Tensor, error) {
	if len(data) == 0 {
		return tensors.FromRaw(m.backend, compute.DeviceNum(device), shape, data)
	}
	flat := dtypes.UnsafeAnySliceFromBytes(unsafe.Pointer(unsafe.SliceData(data)), shape.DType, shape.Size())
	buffer, err := m.backend.BufferFromFlatData(compute.DeviceNum(device), flat, shape)
	if err != nil {
		return nil, err
	}
	return tensors.FromBuffer(buffer)
}

// partOf is the shape of a device's part of a tensor. (ShardingSpec.ShardShape wants a specification of all axes.)
func partOf(whole shapes.Shape, place *distributed.ShardingSpec) shapes.Shape {
	part := whole.Clone()
	for i := range place.Axes {
		part.Dimensions[i] /= place.NumDevicesShardingAxis(i)
	}
	return part
}

// cut is distribute for parts that are not one stretch of the tensor's memory.
func (m *Mesh) cut(t *tensors.Tensor, place *distributed.ShardingSpec) (*dtensor.Tensor, error) {
	onHost, err := dtensor.ShardTensor(place, t)
	if err != nil {
		return nil, err
	}
	shards := make([]*tensors.Tensor, m.Devices())
	var failed error
	for i, part := range onHost.Shards() {
		if err = part.ConstBytes(func(data []byte) {
			shards[i], failed = m.upload(i, part.Shape(), data)
		}); err != nil || failed != nil {
			break
		}
	}
	joined, err := m.join(place, shards, err, failed)
	if freeErr := onHost.Finalize(); err == nil {
		err = freeErr
	}
	return joined, err
}

// join makes one tensor of the parts, or frees them if one of the errors is set.
func (m *Mesh) join(place *distributed.ShardingSpec, shards []*tensors.Tensor, errs ...error) (*dtensor.Tensor, error) {
	for _, err := range errs {
		if err != nil {
			for _, s := range shards {
				if s != nil {
					_ = s.FinalizeAll()
				}
			}
			return nil, err
		}
	}
	return dtensor.NewTensor(place, shards)
}

// Bytes is the memory that the store's tensors take on one device, optimizer slots included.
func Bytes(store *mlx.Store) int64 {
	var sum int64
	for v := range store.IterVariables() {
		part := v.ShardShape()
		sum += int64(part.ByteSize())
	}
	return sum
}
