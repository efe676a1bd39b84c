// Empty: c10d includes it, and uses nothing of it in its own headers.
#pragma once
