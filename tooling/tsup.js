import { defineConfig } from 'tsup';

/** The build of every package: ESM and CommonJS entry points, each with its own declarations. */
export const library = (entry = ['src/index.ts'], more = {}) =>
  defineConfig({
    entry,
    format: ['esm', 'cjs'],
    target: 'node20',
    platform: 'node',
    // What is marked @internal is not declared: a caller sees neither it nor the types of other packages in it.
    dts: { compilerOptions: { stripInternal: true } },
    sourcemap: true,
    clean: true,
    shims: true,
    splitting: true,
    treeshake: false,
    ...more,
  });
