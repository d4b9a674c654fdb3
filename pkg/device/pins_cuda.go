package device

import "regexp"

// cudaSet is XLA's CUDA plugin with the NVIDIA libraries it opens: 2.0 GB to download, 2.7 GB unpacked. The versions
// are those of CUDA 13.0 Update 2, which run on every driver for CUDA 13 (580 and newer; a newer compiler on an older
// driver makes XLA compile one kernel at a time), except
//
//   - cuBLAS, which is that of CUDA 13.2: older ones can corrupt results on Blackwell GPUs when kernels run side by
//     side, says the list of known faults that ships with the plugin,
//   - cuDNN, NCCL and NVSHMEM, which have releases of their own; the plugin needs at least 9.12, 2.27.7 and 3.3.20.
var cudaSet = &pluginSet{
	kind: KindCUDA, platform: "linux/amd64",
	// The plugin looks for libraries in ../../nvidia, so files keep the paths they have in the wheels.
	plugin: "jax_plugins/xla_cuda13/xla_cuda_plugin.so",
	keep:   regexp.MustCompile(`\.so(\.\d+)*$|/bin/(ptxas|nvlink|fatbinary)$|\.bc$|/licenses/|\.dist-info/METADATA$`),
	// Large libraries that nothing here opens.
	drop: regexp.MustCompile(`/libnvblas\.|\.alt\.so\.|/libcusolverMg\.|/libcufftw\.`),
	wheels: []wheel{
		{
			project: "jax-cuda13-pjrt", version: "0.11.2",
			file: "jax_cuda13_pjrt-0.11.2-py3-none-manylinux_2_27_x86_64.whl",
			size: 134162640, unpacked: 411466436,
			sha256: "e5ff589d43064913bb74027682d89639c7ea48f9f81c2bae6fc75117e913f93e",
		},
		{
			project: "nvidia-cublas", version: "13.4.0.1",
			file: "nvidia_cublas-13.4.0.1-py3-none-manylinux_2_27_x86_64.whl",
			size: 404872465, unpacked: 562520921,
			sha256: "53bf22e2ccbf644db74b6cc21cea7f5efb1a52aa64515438b430abbd05af4106",
		},
		{
			project: "nvidia-cuda-cupti", version: "13.0.85",
			file: "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
			size: 10715597, unpacked: 44009963,
			sha256: "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
		},
		{
			project: "nvidia-cuda-nvcc", version: "13.0.88",
			file: "nvidia_cuda_nvcc-13.0.88-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
			size: 37384532, unpacked: 77188178,
			sha256: "56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03",
		},
		{
			project: "nvidia-cuda-nvrtc", version: "13.0.88",
			file: "nvidia_cuda_nvrtc-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
			size: 90215200, unpacked: 113779645,
			sha256: "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
		},
		{
			project: "nvidia-cuda-runtime", version: "13.0.96",
			file: "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
			size: 2243632, unpacked: 765243,
			sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
		},
		{
			project: "nvidia-cudnn-cu13", version: "9.15.1.9",
			file: "nvidia_cudnn_cu13-9.15.1.9-py3-none-manylinux_2_27_x86_64.whl",
			size: 351298418, unpacked: 472465426,
			sha256: "ebc9a647918df0d7298d67cfaf41579fd4c78ead9aba246f5ad9414d61b9ec4c",
		},
		{
			project: "nvidia-cufft", version: "12.0.0.61",
			file: "nvidia_cufft-12.0.0.61-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
			size: 214085489, unpacked: 286603369,
			sha256: "6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3",
		},
		{
			project: "nvidia-cusolver", version: "12.0.4.66",
			file: "nvidia_cusolver-12.0.4.66-py3-none-manylinux_2_27_x86_64.whl",
			size: 200941980, unpacked: 141213964,
			sha256: "0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112",
		},
		{
			project: "nvidia-cusparse", version: "12.6.3.3",
			file: "nvidia_cusparse-12.6.3.3-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
			size: 145942937, unpacked: 162626281,
			sha256: "2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b",
		},
		{
			project: "nvidia-nccl-cu13", version: "2.28.9",
			file: "nvidia_nccl_cu13-2.28.9-py3-none-manylinux_2_18_x86_64.whl",
			size: 196493177, unpacked: 217999817,
			sha256: "e4553a30f34195f3fa1da02a6da3d6337d28f2003943aa0a3d247bbc25fefc42",
		},
		{
			project: "nvidia-nvjitlink", version: "13.0.88",
			file: "nvidia_nvjitlink-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
			size: 40713933, unpacked: 98867712,
			sha256: "13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b",
		},
		{
			project: "nvidia-nvshmem-cu13", version: "3.4.5",
			file: "nvidia_nvshmem_cu13-3.4.5-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
			size: 60412546, unpacked: 77033100,
			sha256: "290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80",
		},
		{
			project: "nvidia-nvvm", version: "13.0.88",
			file: "nvidia_nvvm-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
			size: 61601415, unpacked: 63544748,
			sha256: "c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0",
		},
	},
}
