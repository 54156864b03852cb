import { readdirSync, existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const packages = fileURLToPath(new URL('../packages/', import.meta.url));

// Tests read the sources of sibling packages, so that a test run never meets a stale build.
const alias = readdirSync(packages)
  .filter((name) => existsSync(`${packages}${name}/src/index.ts`))
  .flatMap((name) => [
    { find: new RegExp(`^@q/${name}$`), replacement: `${packages}${name}/src/index.ts` },
    { find: new RegExp(`^@q/${name}/(conformance|testing)$`), replacement: `${packages}${name}/src/$1/index.ts` },
  ]);

/** The vitest preset of every package; zero tests is a failure. */
export const preset = (test = {}) =>
  defineConfig({
    resolve: { alias },
    test: { include: ['src/**/*.test.ts', 'test/**/*.test.ts'], passWithNoTests: false, testTimeout: 60_000, ...test },
  });
