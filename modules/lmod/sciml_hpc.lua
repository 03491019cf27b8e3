-- Environment module for Lmod: `module use <checkout>/modules/lmod; module load sciml_hpc`. At a centre, copy it to
-- <modulefiles>/sciml_hpc/<version>.lua and name the environment that modules/install-stack.sh made in `venv`.
local checkout = myFileName():gsub("/modules/lmod/[^/]*$", "")
local venv = os.getenv("SCIML_HPC_VENV") or pathJoin(checkout, ".venv")

whatis("Scientific machine-learning benchmarks for supercomputers")
help([[Start:  srun -N 4 python -m sciml_hpc cloudmask      All commands:  python -m sciml_hpc]])

-- The modules the environment was built with, so that their libraries are found on the nodes; for example:
-- depends_on("gcc", "openmpi", "cuda")

if not isFile(pathJoin(venv, "bin/python")) then
   LmodError("sciml_hpc: no environment in " .. venv .. "; run modules/install-stack.sh, or set SCIML_HPC_VENV")
end
conflict("sciml_hpc")
prepend_path("PATH", pathJoin(venv, "bin"))
setenv("SCIML_HPC_VENV", venv)
setenv("PYTHONNOUSERSITE", "1") -- packages in ~/.local would go before those the results name
